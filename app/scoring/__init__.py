"""More photos than one list, one process or one machine holds: scored shard by shard, and sorted.

``sources`` finds files one at a time, ``index`` remembers on disk which are done, ``shard`` answers
some 10,000 of them, ``parts`` writes the answers as Parquet. ``score`` is the command; with
``--ray`` it gives shards to other processes and machines, each as large as ``shard_size`` says.
"""
