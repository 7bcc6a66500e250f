"""Asking the page's server as its script does."""

import http.client
import json


def get(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def post(port, path, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"Content-Type": "application/json", **headers}
    connection.request("POST", path, json.dumps(body) if isinstance(body, dict) else body, headers)
    return connection.getresponse()


def ask(port, path, **body):
    """`(status, events)`"""
    answer = post(port, path, body)
    return answer.status, [json.loads(line) for line in answer.read().decode().splitlines()]


def written(events):
    return "".join(event.get("text", "") for event in events)
