FROM python:3.13-slim
WORKDIR /opt/purge
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN chmod -R a+rX .
RUN useradd --system purge
USER purge
ENV PYTHONUNBUFFERED=1
CMD ["deploy/web"]
