"""The one way to local disk and object storage; nothing else opens a file to write."""
