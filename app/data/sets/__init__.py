"""Photos to try with: downloaded (``fetch``) or drawn (``synthetic_pets``)."""
