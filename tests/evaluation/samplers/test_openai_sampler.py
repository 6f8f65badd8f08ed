"""Does every request get its own answer from servers that stall, stumble and talk nonsense? Real HTTP on localhost."""

import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import dasd.evaluation.samplers.openai as module
from dasd.cli import run
from dasd.config import BadInput, EvalConfig, ModelConfig, SamplerConfig, load_config
from dasd.evaluation.samplers import NEUTRAL, Request, Sampled, SamplingFailed, SamplingParams, Watch, make_sampler
from dasd.files import read_lines
from openai_server import completion, serve

REQUESTS = [Request(f"p{i}/0", [{"role": "user", "content": f"problem {i}"}], 1000 + i) for i in range(24)]
PARAMS = SamplingParams(55, temperature=0.7, top_p=0.9)
RIGHT = [Sampled(None, f"answer to problem {i}, seed {1000 + i}", "stop") for i in range(24)]


def good(count, body):
    return 200, {}, completion(body)


def sampler_of(*urls, **settings):
    settings = {"concurrency": 4, "retries": 3, "timeout_s": 5.0, "base_urls": urls} | settings
    return make_sampler(SamplerConfig(backend="openai", **settings), ModelConfig(path="some/model"))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)


def test_requests_go_out_whole_and_answers_come_back_in_order(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")

    def slower_first(count, body):
        time.sleep(0.05 if count % 5 == 1 else 0.005)
        return good(count, body)

    with serve(slower_first) as server:
        sampler = sampler_of(server.url + "/", api_key_env="MY_KEY")
        assert sampler.sample(REQUESTS, PARAMS) == RIGHT
    assert server.most == 4  # as many as allowed, and no more
    assert set(server.paths) == {"/v1/chat/completions"}
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    same = {"model": "some/model", "max_tokens": 55, "temperature": 0.7, "top_p": 0.9, **NEUTRAL}
    assert sorted(server.seen, key=lambda body: body["seed"]) == [
        same | {"messages": request.prompt, "seed": request.seed} for request in REQUESTS
    ]
    assert "secret" not in json.dumps(sampler.describe())
    assert (sampler.deterministic, sampler.longest_prompt([]), sampler.context_length) == (False, None, None)


OPENAI = ["--sampler.backend", "openai", "--sampler.base_urls", "http://a"]


def test_the_server_renders_with_the_models_template_arguments():
    model = ModelConfig(path="some/model", chat_template_kwargs={"enable_thinking": False})
    with serve(good) as server:
        make_sampler(SamplerConfig(backend="openai", base_urls=(server.url,)), model).sample(REQUESTS[:1], PARAMS)
    assert server.seen[0]["chat_template_kwargs"] == {"enable_thinking": False}
    with pytest.raises(BadInput, match="the server renders the prompts; start it with the template"):
        load_config(
            EvalConfig,
            None,
            ["--sampler.backend", "openai", "--sampler.base_urls", "http://a", "--model.chat_template", "plain"],
        )


RECOVERABLE = {
    "500": (500, {}, {"error": {"message": "worker died"}}),
    "503 from a proxy": (503, {}, "<html>Service Unavailable</html>"),
    "429": (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}}),
    "429 with nonsense": (429, {"Retry-After": "soon"}, ""),
    "408": (408, {}, ""),
    "409": (409, {}, ""),
    "cut before the answer": b"",
    "cut in the answer": b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [',
    "not HTTP": b"hello?\r\n\r\n",
    "malformed JSON": (200, {}, '{"choices": [{"message"'),
    "compressed nonsense": (200, {"Content-Encoding": "gzip"}, "not gzip"),
    "a list": (200, {}, "[]"),
    "null": (200, {}, "null"),
    "no choices": (200, {}, {"choices": []}),
    "no message": (200, {}, {"choices": [{"finish_reason": "stop"}]}),
    "two choices": (200, {}, {"choices": completion({"messages": [{"content": "x"}], "seed": 0})["choices"] * 2}),
    "aborted": (200, {}, {"choices": [{"message": {"content": "half an an"}, "finish_reason": "abort"}]}),
    "unfinished": (200, {}, {"choices": [{"message": {"content": "half an an"}, "finish_reason": None}]}),
    "content of another kind": (200, {}, {"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}),
}


@pytest.mark.parametrize("name", RECOVERABLE)
def test_a_bad_answer_is_asked_again(name):
    with serve(lambda count, body: RECOVERABLE[name] if count <= 2 else good(count, body)) as server:
        assert sampler_of(server.url, concurrency=1).sample(REQUESTS[:3], PARAMS) == RIGHT[:3]
    assert [body["seed"] for body in server.seen] == [1000, 1000, 1000, 1001, 1002]


@pytest.mark.parametrize("name", RECOVERABLE)
def test_a_lasting_fault_ends_with_the_reason_and_keeps_what_was_finished(name):
    def behave(count, body):
        return RECOVERABLE[name] if body["seed"] == 1005 else good(count, body)

    expected = pytest.raises(SamplingFailed, match="p5/0 could not be sampled in 3 attempts")
    heard = []
    with serve(behave) as server, expected as caught:
        watch = Watch(lambda request, sampled: heard.append((request, sampled)))
        sampler_of(server.url, concurrency=1, retries=2).sample(REQUESTS, PARAMS, watch)
    assert heard == list(zip(REQUESTS[:5], RIGHT[:5], strict=True))
    assert len(server.seen) == 5 + 3
    message = str(caught.value)
    assert server.url in message
    reason = {"500": "worker died", "two choices": "2 choices", "aborted": "'abort'", "malformed JSON": "not a chat completion"}
    assert reason.get(name, "") in message


@pytest.mark.parametrize("name", ["seconds", "date"])
def test_retry_after_is_respected_by_all(name):
    def behave(count, body):
        value = "1" if name == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return (429, {"Retry-After": value}, "") if count == 1 else good(count, body)

    with serve(behave) as server:
        assert sampler_of(server.url, concurrency=1).sample(REQUESTS[:6], PARAMS) == RIGHT[:6]
    assert server.times[1] - server.times[0] >= 0.99
    assert server.times[-1] - server.times[1] < 0.9  # and then at full speed


def test_pauses_grow(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    with serve(lambda count, body: (500, {}, "")) as server, pytest.raises(SamplingFailed):
        sampler_of(server.url, retries=4).sample(REQUESTS[:1], PARAMS)
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert all(gap >= 0.05 * 2**i / 2 for i, gap in enumerate(gaps))
    assert len(gaps) == 4


@pytest.mark.parametrize("name", ["silent", "dripping"])
def test_a_stalled_request_is_given_up(name):
    """Nothing at all, and an answer that never stops coming."""
    over = threading.Event()

    def behave(count, body):
        if count > 1:
            return good(count, body)
        over.wait(3)
        return b""

    with serve(behave) as server:
        if name == "dripping":
            handler = server.http.RequestHandlerClass
            plain = handler.do_POST

            def drip(self):
                if server.seen:
                    return plain(self)
                server.seen.append({})
                server.times.append(time.monotonic())
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not over.wait(0.05):
                    self.wfile.write(b" ")
                return None

            handler.do_POST = drip
        started = time.monotonic()
        try:
            assert sampler_of(server.url, timeout_s=0.4).sample(REQUESTS[:1], PARAMS) == RIGHT[:1]
        finally:
            over.set()
        assert 0.4 <= time.monotonic() - started < 2.5
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"error": {"message": "maximum context length is 4096 tokens", "type": "BadRequestError"}}),
        (400, {"error": "maximum context length is 4096 tokens"}),
        (422, {"detail": "maximum context length is 4096 tokens"}),
        (404, {"object": "error", "message": "maximum context length is 4096 tokens"}),
        (401, "maximum context length\n is 4096 tokens"),
    ],
)
def test_a_refused_request_is_not_repeated(status, said):
    expected = pytest.raises(BadInput, match=f"HTTP {status}: maximum context length is 4096 tokens")
    with serve(lambda count, body: (status, {}, said)) as server, expected:
        sampler_of(server.url, concurrency=1).sample(REQUESTS, PARAMS)
    assert len(server.seen) == 1


def test_servers_share_and_a_failing_one_is_left_alone(monkeypatch):
    with serve(good) as first, serve(good) as second:
        assert sampler_of(first.url, second.url).sample(REQUESTS, PARAMS) == RIGHT
        assert len(first.seen) == len(second.seen) == 12
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 30.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with serve(lambda count, body: (503, {}, "")) as ill, serve(good) as well:
        started = time.monotonic()
        assert sampler_of(nobody, ill.url, well.url, concurrency=2).sample(REQUESTS, PARAMS) == RIGHT
        assert time.monotonic() - started < 5
        assert len(ill.seen) <= 2
        assert len(well.seen) == 24


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": ""}, "stop", ""),
        ({"content": None}, "length", ""),
        ({"content": "6", "reasoning_content": "1 + 2 + 3. "}, "stop", "1 + 2 + 3. 6"),
        ({"content": None, "reasoning": "1 + 2"}, "length", "1 + 2"),
    ],
)
def test_what_counts_as_text(message, finish, text):
    with serve(lambda count, body: (200, {}, completion(body, message=message, finish_reason=finish))) as server:
        assert sampler_of(server.url).sample(REQUESTS[:1], PARAMS) == [Sampled(None, text, finish)]


def test_a_servers_own_defaults_have_no_say():
    """vLLM fills what a request leaves out from the model's generation_config.json, SGLang and llama.cpp from their flags."""
    own = {"top_k": 20, "top_p": 0.8, "min_p": 0.1, "temperature": 0.6, "repetition_penalty": 1.05, "presence_penalty": 1.5}
    own |= {"frequency_penalty": 0.5, "seed": 0, "max_tokens": 16}
    with serve(good) as server:
        sampler_of(server.url).sample(REQUESTS[:1], SamplingParams(55))
    assert {name: value for name, value in (own | server.seen[0]).items() if name in own} == {
        "top_k": -1, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "seed": 1000, "max_tokens": 55,
    }  # fmt: skip


def test_a_server_that_knows_openais_fields_alone():
    """It refuses others; the message says how to leave them out, and the record of the evaluation says that they were."""

    def strict(count, body):
        unknown = [name for name in body if name in ("top_k", "min_p", "repetition_penalty")]
        said = {"error": {"message": f"Unrecognized request argument supplied: {', '.join(unknown)}"}}
        return (400, {}, said) if unknown else good(count, body)

    with serve(strict) as server:
        with pytest.raises(BadInput, match=r"argument supplied: top_k.*: --sampler\.openai_fields_only true"):
            sampler_of(server.url).sample(REQUESTS[:1], PARAMS)
        sampler = sampler_of(server.url, openai_fields_only=True)
        assert sampler.sample(REQUESTS[:1], PARAMS) == RIGHT[:1]
    assert {name: server.seen[-1].get(name) for name in NEUTRAL} == {
        "top_k": None, "min_p": None, "repetition_penalty": None, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    }  # fmt: skip
    assert sampler.describe()["left_to_the_server"] == ["top_k", "min_p", "repetition_penalty"]


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_a_completion_that_the_server_cut_short_is_no_sample(finish):
    """A limit of the server's own: its context, or max_new_tokens of a generation config."""

    def behave(count, body):
        return 200, {}, completion(body, finish_reason=finish) | {"usage": {"prompt_tokens": 9, "completion_tokens": 54}}

    with serve(behave) as server:
        sampler = sampler_of(server.url)
        if finish == "stop":
            assert sampler.sample(REQUESTS[:1], PARAMS) == RIGHT[:1]
            return
        with pytest.raises(BadInput, match=r"cut a completion off after 54 tokens, 55 were asked for.*9 tokens of prompt"):
            sampler.sample(REQUESTS[:1], PARAMS)
        assert sampler.sample(REQUESTS[:1], SamplingParams(54))[0].finish_reason == "length"


def test_token_ids_where_the_server_tells():
    with serve(lambda count, body: (200, {}, completion(body, token_ids=[5, 6, 7]))) as server:
        sampled = sampler_of(server.url, return_token_ids=True).sample(REQUESTS[:1], PARAMS)
    assert server.seen[0]["return_token_ids"] is True
    assert sampled[0].token_ids == [5, 6, 7]


def test_settings_that_cannot_be():
    def complaint(*words):
        with pytest.raises(BadInput) as caught:
            load_config(EvalConfig, None, words)
        return str(caught.value)

    assert "needs a server: --sampler.base_urls http" in complaint("--sampler.backend", "openai")
    assert "leave out base_urls, or --sampler.backend openai" in complaint("--sampler.base_urls", "http://a/v1")
    assert "got 'localhost:8000'" in complaint("--sampler.backend", "openai", "--sampler.base_urls", "http://a,localhost:8000")
    config = load_config(EvalConfig, None, ["--sampler.backend", "openai", "--sampler.base_urls", "http://a/v1, http://b/v1"])
    assert config.sampler.base_urls == ("http://a/v1", "http://b/v1")
    with pytest.raises(BadInput, match="environment variable NO_SUCH_KEY is not set"):
        sampler_of("http://a/v1", api_key_env="NO_SUCH_KEY")


def test_an_evaluation_survives_its_server(tmp_path, capsys):
    """The server dies for good after 13 answers and comes back: exit code 1, then the rest, each sample once."""
    dead = threading.Event()

    def behave(count, body):
        if count == 14:
            dead.set()
        return (500, {}, {"error": {"message": "CUDA error"}}) if dead.is_set() else good(count, body)

    with serve(behave) as server:
        words = ["eval", "some/model", "--num_samples", "4", "--data.limit", "6", "--output", str(tmp_path)]
        words += ["--sampler.backend", "openai", "--sampler.base_urls", server.url, "--sampler.batch_size", "8"]
        words += ["--sampler.concurrency", "2", "--sampler.retries", "1"]
        assert run(words) == 1
        errors = capsys.readouterr().err
        assert len(errors.splitlines()) == 1
        assert "CUDA error" in errors
        before = read_lines(tmp_path / "samples.jsonl")
        assert len(before) == 13
        dead.clear()
        assert run(words) == 0
    after = read_lines(tmp_path / "samples.jsonl")
    assert after[:13] == before
    assert len({(record["problem_id"], record["sample"]) for record in after}) == len(after) == 24
    assert json.loads((tmp_path / "summary.json").read_text())["mean_length"] is None  # this server tells no tokens
