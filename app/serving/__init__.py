"""HTTP and the page: ``python -m app serve``; no Keras.

``serve`` is the command, ``service`` has the routes, ``batching`` collects photos for the network.
"""
