"""What `cnisandbox demo` is made of: namespaces to play in, the processes of a held call, snapshots of a machine."""
