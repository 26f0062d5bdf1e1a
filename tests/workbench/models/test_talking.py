import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from workbench import models

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
ASKED = [{"role": "user", "content": "Mary went to"}]
SECRET = "not-a-real-key"


def said(text):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


@pytest.fixture
def served(monkeypatch):
    """A server on this machine that answers what it is given, and stops after the last of it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = []

    def serve(*answers):
        requests = []

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                requests.append((self.path, dict(self.headers), body))
                code, text = answers[len(requests) - 1]
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", text)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Answering)
        server.timeout = 20

        def answer_all():
            for _ in answers:
                server.handle_request()
            server.server_close()

        thread = threading.Thread(target=answer_all, daemon=True)
        thread.start()
        started.append(thread)
        return f"http://127.0.0.1:{server.server_address[1]}/v1", requests

    yield serve
    for thread in started:
        thread.join(25)
        assert not thread.is_alive()


@pytest.fixture
def talker(monkeypatch):
    model = models.load("tiny-gqa")
    monkeypatch.setattr(model.tokenizer, "chat_template", TEMPLATE)
    return model


def test_a_reply_is_the_likeliest_token_at_each_step(talker):
    ids = models.chat(talker, ASKED).tokens
    expected = []
    with torch.no_grad():
        for _ in range(5):
            expected.append(int(talker(ids)[0, -1].argmax()))
            ids = torch.cat([ids, torch.tensor([[expected[-1]]])], dim=1)
    words = talker.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert models.reply(talker, ASKED, tokens=5) == words


def test_a_reply_without_room_is_refused(talker):
    with pytest.raises(ValueError, match="0 tokens were asked for"):
        models.reply(talker, ASKED, tokens=0)


def test_an_endpoint_is_asked_as_the_protocol_says(served, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url, requests = served(said("  Rome. \n"))
    assert models.Endpoint(url, "small", tokens=9)(ASKED) == "Rome."
    [(path, headers, body)] = requests
    assert path == "/v1/chat/completions"
    assert body == {"model": "small", "messages": ASKED, "temperature": 0, "max_tokens": 9}
    assert "Authorization" not in headers


def test_the_key_comes_from_the_named_variable_and_stands_nowhere_else(served, monkeypatch):
    monkeypatch.setenv("SOME_KEY", SECRET)
    url, requests = served(said("yes"), (401, "who are you?"))
    endpoint = models.Endpoint(url, "small", key="SOME_KEY")
    endpoint(ASKED)
    assert requests[0][1]["Authorization"] == f"Bearer {SECRET}"
    with pytest.raises(ConnectionError, match=r"answered 401: 'who are you\?'") as refused:
        endpoint(ASKED)
    assert SECRET not in f"{endpoint} {endpoint!r} {refused.value!r}"


def test_a_key_is_not_sent_unencrypted_to_another_machine(monkeypatch):
    monkeypatch.setenv("SOME_KEY", SECRET)
    endpoint = models.Endpoint("http://model.invalid/v1", "small", key="SOME_KEY")
    with pytest.raises(ValueError, match=r"SOME_KEY is not sent unencrypted: use https"):
        endpoint(ASKED)


def test_a_key_in_place_of_its_name_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="name of an environment variable") as refused:
        models.Endpoint("http://127.0.0.1:1/v1", "small", key=SECRET)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "file:///etc/passwd", "http://", "ftp://a/b"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="give one such as"):
        models.Endpoint(url, "small")


def test_a_redirection_is_not_followed(served, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    elsewhere, taken = served(said("mine now"))
    url, _ = served((302, f"{elsewhere}/chat/completions"))
    with pytest.raises(ConnectionError, match="answered 302"):
        models.Endpoint(url, "small")(ASKED)
    assert not taken
    models.Endpoint(elsewhere, "small")(ASKED)  # so that it stops


@pytest.mark.parametrize(
    "text", ["no json", "[]", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}']
)
def test_an_answer_that_says_nothing_is_shown(served, text):
    url, _ = served((200, text))
    with pytest.raises(ValueError, match=r"gave no choices\[0\]\.message\.content but"):
        models.Endpoint(url, "small")(ASKED)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ConnectionError, match=r"small at http://127\.0\.0\.1:9/v1 did not answer"):
        models.Endpoint("http://127.0.0.1:9/v1", "small", seconds=5.0)(ASKED)
