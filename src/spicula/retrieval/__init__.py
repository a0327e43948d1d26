"""Indexes of embeddings: the exact one, faiss's and PostgreSQL's, all with the same methods; one file each."""
