"""A model → a GGUF file for llama.cpp and what is built on it, and a Modelfile for Ollama beside it."""
