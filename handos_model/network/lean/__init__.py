"""The network once more, as few operations: what is exported, and compared with the plain one.

Everything that depends on weights and shapes alone is computed when a module is built, tokens stay
a matrix of rows, and the batch is one image.
"""
