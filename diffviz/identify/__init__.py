"""Any sampler, identified from outside.

A sampler must call its model with (x_t, t). A model of our own in that place sees every call: what
the sampler tells it, and how x_s depends on x_t, on the model's answer and on noise. Read ``xray``
first.
"""
