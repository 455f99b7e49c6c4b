"""Resolving a reference to a checkpoint: folders, hub ids, and the errors for other references."""

from __future__ import annotations

import errno
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from drupe.api import Model, ModelError, OutputError, UsageError
from drupe_checkpoints import hub
from drupe_checkpoints.kind import HfKind
from drupe_huggingface.missing_paths import looks_like_a_path
from drupe_huggingface.plugin import drupe_options, drupe_resolve_model

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def resolve(reference: object, **options: Any) -> Any:
    return drupe_resolve_model(reference=str(reference), options=options)


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_a_folder_with_config_json_is_a_checkpoint(tmp_path: Path) -> None:
    model = resolve(checkpoint(tmp_path))
    assert (model.kind, model.location, model.task) == ("hf", tmp_path, "text-generation")
    assert model.payload.model_type == "llama"


def test_a_checkpoint_of_an_unknown_class_has_no_task(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "acme", "architectures": ["AcmeFrobnicator"]}))
    assert resolve(tmp_path).task is None


def test_the_options_of_the_hub_apply_to_the_source() -> None:
    options = {option.name: option for option in drupe_options()}
    assert options.keys() == {"adapter", "adapters", "revision", "token", "cache_dir"}
    assert all(option.source for option in options.values())
    assert options["token"].secret
    assert options["token"].environment == "HF_TOKEN"


def test_revision_with_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="--revision is for models on the hub"):
        resolve(str(tmp_path), revision="main")


def test_a_file_of_a_checkpoint_is_refused_with_its_folder(tmp_path: Path) -> None:
    file = checkpoint(tmp_path) / "model.safetensors"
    file.touch()
    with pytest.raises(ModelError, match="is one file of a checkpoint") as raised:
        resolve(file)
    assert raised.value.cure == f"name its folder: {tmp_path}"


def test_references_for_other_plugins_are_not_resolved(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    (folder / "model.onnx").touch()
    assert resolve(folder) is None
    assert resolve(folder / "model.onnx") is None
    assert resolve("s3://bucket/model") is None


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("modle.onnx", "there is no file modle.onnx; did you mean model.onnx or model.gguf?"),
        ("MODEL2.ONNX", "there is no file MODEL2.ONNX; did you mean model.onnx or model.gguf?"),
        ("models/qwn.gguf", "there is no file models/qwn.gguf; did you mean models/qwen.gguf?"),
        ("./modles/qwen.gguf", "there is no file modles/qwen.gguf; did you mean models/qwen.gguf?"),
        ("./modles", "there is no folder modles; did you mean models?"),
        ("acme/qwen.pth", "there is no file acme/qwen.pth"),
        ("weights.safetensors", "there is no file weights.safetensors"),
    ],
)
def test_a_missing_file_is_said_with_the_nearest_models_of_its_folder(
    reference: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "find", lambda *_: pytest.fail("asked the hub"))
    (tmp_path / "models").mkdir()
    for name in ("model.onnx", "model.gguf", "weight.safetensors", "models/qwen.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError) as caught:
        resolve(reference)
    assert caught.value.what == told and caught.value.cure


@pytest.mark.parametrize("reference", ["/no/such/folder", "./nothing", "~/nothing", "a/b/c", "gone/", "C:\\models\\x"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(
    reference: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(hub, "find", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="there is no folder") as caught:
        resolve(reference)
    assert caught.value.cure


def test_a_reference_below_an_existing_folder_is_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert looks_like_a_path("models/gone")
    assert not looks_like_a_path("Qwen/Qwen3-8B")


@pytest.mark.parametrize("reference", ["", " ", "two words", "org/na me", "org--name", "ü/ö"])
def test_a_reference_that_is_neither_a_path_nor_a_hub_id_is_an_error(reference: str) -> None:
    with pytest.raises(ModelError):
        resolve(reference)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is empty"),
        ({"model.safetensors": ""}, "no config.json"),
        ({"adapter_config.json": "{}"}, "an adapter, not a model"),
        ({"config.json": "{"}, "not JSON.*line 1"),
        ({"config.json": "[1]"}, "is not a JSON object"),
        ({"config.json": b"\xff\xfe\x00"}, "text in UTF-16"),
        ({"config.json": "[" * 200_000}, "nested too deeply"),
        ({"config.json": f'{{"head_dim": {"9" * 5000}}}'}, "a number is too long"),
    ],
)
def test_a_folder_that_is_not_a_checkpoint_is_refused(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=message) as caught:
        resolve(tmp_path)
    assert caught.value.cure


def test_a_hub_id_is_downloaded_with_the_options_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(checkpoint(tmp_path / "snapshot"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    model = resolve("org/name", revision="v1", token="secret", cache_dir="/cache")
    assert model.location == tmp_path / "snapshot"
    assert model.facts == {"commit": "snapshot"}
    assert {key: asked[key] for key in ("repository", "revision", "token", "cache_dir")} == {
        "repository": "org/name", "revision": "v1", "token": "secret", "cache_dir": "/cache",
    }  # fmt: skip
    assert "*.bin" not in asked["allow_patterns"]
    assert "*.safetensors" not in asked["allow_patterns"]
    assert "secret" not in repr(model)


def test_a_reference_too_long_for_a_file_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for reference in ("x" * 300, f"org/{'x' * 300}", f"./{'x' * 300}", f"{'x' * 300}/y"):
        with pytest.raises(ModelError) as caught:
            resolve(reference)
        assert caught.value.cure


def test_the_error_for_a_reference_below_an_unreadable_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test replaces a function, because root may read every folder."""

    def forbid(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name in ("stat", "is_dir", "is_file", "iterdir"):
        monkeypatch.setattr(Path, name, forbid)
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        resolve(tmp_path / "secret" / "model")


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a hub on this machine."""
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A hub that answers every request with a status and the hub's own name for the error."""
    answer: dict[str, Any] = {}

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            if answer["code"]:
                self.send_header("X-Error-Code", answer["code"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Refuse, monkeypatch):
        yield answer


COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class FakeHub:
    """The repository org/name, whose branch main is COMMIT. It records the requests."""

    files: dict[str, bytes]
    fetched: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[dict[str, str], bytes] | None:
        if path.startswith("/org/name/resolve/"):
            revision, _, name = path.removeprefix("/org/name/resolve/").partition("/")
            if revision == COMMIT and name in self.files:
                return {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'}, self.files[name]
            return None
        if path.startswith(f"/api/models/org/name/tree/{COMMIT}"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in self.files.items()
            ]
            return {}, json.dumps(entries).encode()
        siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
        return {}, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    header = json.dumps({"one": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(8)
    hub = FakeHub({"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights, "pytorch_model.bin": b"!"})

    class Serve(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = hub.answer(self.path)
            headers, content = found or ({"X-Error-Code": "EntryNotFound"}, b"")
            if self.command == "GET" and "/resolve/" in self.path:
                hub.fetched.append(self.path.rpartition("/")[2])
            self.send_response(200 if found else 404)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Serve, monkeypatch):
        yield hub


def test_weights_are_downloaded_only_when_they_are_needed(fake_hub: FakeHub, tmp_path: Path) -> None:
    model = resolve("org/name", cache_dir=str(tmp_path))
    size = len(fake_hub.files["model.safetensors"])
    assert model.location.name == COMMIT
    assert HfKind().describe(model)["weight bytes"] == size
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):  # and nothing worse
        model.payload.refuse_incomplete()
    assert HfKind().size(model) == size + len(fake_hub.files["config.json"])
    assert fake_hub.fetched == ["config.json"]

    assert list(model.payload.tensors()) == ["one"]
    assert fake_hub.fetched == ["config.json", "model.safetensors"]
    again = resolve("org/name", cache_dir=str(tmp_path))
    assert again.payload.tensors()["one"].path.parent == again.location
    assert HfKind().describe(again)["element types"] == ["float32"]
    assert fake_hub.fetched == ["config.json", "model.safetensors"]


def test_an_adapter_on_the_hub_is_downloaded_without_what_lies_beside_it(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = json.dumps({"base_model.model.head.lora_A.weight": {"dtype": "F32", "shape": [1, 2],
                         "data_offsets": [0, 8]}}).encode()  # fmt: skip
    weights = struct.pack("<Q", len(header)) + header + bytes(8)
    fake_hub.files |= {"adapter_config.json": b'{"peft_type": "LORA", "r": 1}', "adapter_model.safetensors": weights}
    monkeypatch.chdir(tmp_path)
    base = checkpoint(tmp_path / "base")
    model = resolve(str(base), adapter=["org/name:0.5"], cache_dir=str(tmp_path / "cache"))
    ((folder, weight),) = json.loads(model.facts["adapters"])
    assert (Path(folder).name, weight) == (COMMIT, 0.5)
    assert sorted(fake_hub.fetched) == ["adapter_config.json", "adapter_model.safetensors"]
    with pytest.raises(ModelError, match="there is no adapter"):
        resolve(str(base), adapter=["name"])


def test_weights_of_layers_after_pooling_are_downloaded_with_the_small_files(fake_hub: FakeHub, tmp_path: Path) -> None:
    modules = [{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"}]
    modules.append({"path": "2_Dense", "type": "a.Dense"})
    weights = fake_hub.files["model.safetensors"]
    fake_hub.files |= {"modules.json": json.dumps(modules).encode(), "2_Dense/config.json": b"{}"}
    fake_hub.files |= {"2_Dense/model.safetensors": weights, "onnx/model.safetensors": weights}
    model = resolve("org/name", cache_dir=str(tmp_path))
    assert (model.location / "2_Dense" / "model.safetensors").read_bytes() == weights
    assert not (model.location / "model.safetensors").exists()
    assert fake_hub.fetched.count("model.safetensors") == 1
    resolve("org/name", cache_dir=str(tmp_path))
    assert fake_hub.fetched.count("model.safetensors") == 1


def test_the_fingerprint_of_a_hub_model_covers_its_weights(fake_hub: FakeHub, tmp_path: Path) -> None:
    model = resolve("org/name", cache_dir=str(tmp_path))
    lazily = HfKind().fingerprint(model, thorough=False)
    assert HfKind().fingerprint(Model("hf", checkpoint(tmp_path / "other")), thorough=False) != lazily
    assert "model.safetensors" in fake_hub.fetched


def test_a_hub_model_of_pickles_is_refused_without_downloading_them(fake_hub: FakeHub, tmp_path: Path) -> None:
    del fake_hub.files["model.safetensors"]
    model = resolve("org/name", cache_dir=str(tmp_path))
    for asked in (model.payload.tensors, model.payload.refuse_incomplete):
        with pytest.raises(ModelError, match=r"org/name are pickles \(pytorch_model\.bin\)") as caught:
            asked()
        assert "save_pretrained" in str(caught.value.cure)
    assert fake_hub.fetched == ["config.json"]


def test_the_error_for_a_hub_that_stops_answering_before_the_weights_says_so(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    model = resolve("org/name", cache_dir=str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # otherwise the hub's client retries many times
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert HfKind().describe(model)["weights"] == "on the hub, not downloaded"
    assert HfKind().size(model) is None
    with pytest.raises(ModelError, match="refused"):
        model.payload.tensors()


def test_a_full_disk_during_a_download_is_reported_as_such(fake_hub: FakeHub, tmp_path: Path) -> None:
    import huggingface_hub

    cache = str(tmp_path / "cache")

    def full(*_: Any, **__: Any) -> str:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("the transfer failed") from error

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OutputError, match="the disk is full") as caught:
        patch.setattr(huggingface_hub, "snapshot_download", full)
        resolve("org/name", cache_dir=cache)
    assert caught.value.where == cache
    assert "--cache-dir" in str(caught.value.cure)


@pytest.mark.parametrize(
    ("status", "code", "message", "cure"),
    [
        (403, "GatedRepo", "terms", "hf auth login"),
        (401, "RepoNotFound", "no repository org/name, or it is private", "HF_TOKEN"),
        (404, "RepoNotFound", "no repository org/name, or it is private", "HF_TOKEN"),
        (404, "RevisionNotFound", "no revision 'v9'", "tree/main"),
        (501, None, "downloading it from http://127.0.0.1", "folder"),
    ],
)
def test_each_error_of_the_hub_has_its_own_message(
    status: int, code: str | None, message: str, cure: str, refusing_hub: dict[str, Any], tmp_path: Path
) -> None:
    refusing_hub.update(status=status, code=code)
    with pytest.raises(ModelError, match=message) as caught:
        resolve("org/name", revision="v9", token="secret", cache_dir=str(tmp_path))
    assert cure in str(caught.value.cure)
    assert "secret" not in str(caught.value)


def test_without_network_the_error_names_the_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Uses the hub's real client with an endpoint on which nothing listens."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError) as caught:
        resolve("org/name", cache_dir=str(tmp_path))
    text = str(caught.value)
    assert "http://127.0.0.1:9" in text
    assert "refused" in text
    assert "folder" in text
    assert len(text.splitlines()) <= 3


def test_a_cached_snapshot_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--name"
    checkpoint(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("org/name", cache_dir=str(tmp_path)).location.name == commit
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        resolve("org/other", cache_dir=str(tmp_path))
