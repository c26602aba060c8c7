"""A teacher's states, computed once and read by any number of trials.

    config.py         where they are kept
    state_kinds.py    which states there are, and how much room they take
    shard.py          one file of states: written whole, mapped into memory, checked before use
    shard_storage.py  where shards lie: a folder, or object storage with a copy on each node
    states.py         the states of one teacher: found by the text they were computed from
    populate.py       the pass of the teacher over texts that are missing
    maintenance.py    the stores that there are: listed, checked and removed

Whoever can read a store can guess at the texts behind it: it is kept like the texts themselves.
"""
