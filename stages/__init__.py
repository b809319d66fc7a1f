"""The pipeline as files (one verb each) and the nouns they work with as folders; see README.md for the tree."""
