"""Speech to text behind one protocol: Whisper by CTranslate2, and what sherpa-onnx runs."""
