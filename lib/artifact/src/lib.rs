//! The TorchScript archive: entries, chunks, signature, and the pre-check of its code.
