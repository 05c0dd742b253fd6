"""The CNI protocol as data: what comes in on stdin and in CNI_ARGS, what goes out on stdout.

Nothing in here opens a file, a socket or a namespace; bytes go in and immutable values come out, or an error of
`cnisandbox.errors`.

    value     one JSON document, read strictly, and typed access to its fields
    netconf   the network configuration that a plugin gets
    versions  the published versions and which verb needs which
    result    results and prevResult, in every published version
    args      CNI_ARGS
    output    the documents that a plugin prints

Privilege: none.

Source: CNI specification 1.1.0.
"""
