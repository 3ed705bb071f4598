"""The workshop: what makes a team robust, and no loss needs. A reader of an algorithm can take it on trust.

`config.py` hyper-parameters and `checks.py` what is refused; `descent.py` the optimizer step; `spread.py` networks on
several devices; `memory.py` recurrent agents; `members.py` one member by itself; `state.py` and `files.py` saving and
loading; `heap.py` memory that large teams use again and again.
"""
