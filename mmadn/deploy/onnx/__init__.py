"""ONNX: `export` writes files and `session` runs them; `tracing` and `joining` are steps of the export."""
