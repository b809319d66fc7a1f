"""From a conversation to token ids: chat template, image slots, and which tokens are the assistant's answers."""
