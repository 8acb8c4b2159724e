"""Stock's decoder of codes puts a table's values in place one after the other, in the order in which protobuf hands the table out. Only
protobuf's own Python implementation keeps the order in which the table was written, and with it the decoder always ends at the table's
values: goldens whose tables hold what is also a code are made with it. A process must be told before it imports protobuf.
"""

IN_ORDER = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
