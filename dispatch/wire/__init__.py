"""The only room that knows bytes: encoders, decoders, frames, sockets and maps."""
