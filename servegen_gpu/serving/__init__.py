"""What a trace asks of servers: a model of continuous batching, and how many instances meet an objective.

`server` has the numbers, `profiles` those that come with the package or from files, `measured` those of a benchmark.
`job` is a trace in integers, which `stepwise` serves in plain Python and `compiled` in C++, to the same bits. `split`
puts prefill and decode on instances of their own, `stages` is what comes before prefill, `simulate` all of it together.
"""
