# The Python in which the image of the services is built, with all wheels that this takes.
FROM tutti-local/python
COPY wheels /wheels
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
