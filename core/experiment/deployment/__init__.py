"""From a trained team to decisions: open it, audit it, ask what if."""
