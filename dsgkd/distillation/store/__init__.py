"""What a teacher says, computed once and read by any number of trials.

    parts.py    which states there are, and how much room they take
    shard.py    one file of states: written whole, mapped into memory, checked before use
    storage.py    where shards lie: a folder, or object storage with a copy on each node
    states.py   the states of one teacher: found by the text they were computed from
    filling.py  the pass of the teacher over texts that are missing
    keeping.py  which stores there are, are they whole, which can go

Whoever can read a store can guess at the texts behind it: it is kept like the texts themselves.
"""
