"""What computes, behind one seam (`base`): local language models, embeddings, remote models."""
