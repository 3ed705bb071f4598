"""The workshop: what makes a team robust, and no loss needs.

`config.py` hyper-parameters, `spread.py` networks on several devices, `memory.py` recurrent agents, `members.py` one
member by itself, `state.py` and `files.py` saving and loading. A reader of an algorithm can take all of it on trust.
"""
