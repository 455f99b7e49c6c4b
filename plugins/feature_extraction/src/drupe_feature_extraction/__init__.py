"""The task feature-extraction for Drupe: packages that give embeddings of texts."""
