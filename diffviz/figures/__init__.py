"""One file per picture: ``x_data(run)`` computes, ``x_figure(data)`` draws."""
