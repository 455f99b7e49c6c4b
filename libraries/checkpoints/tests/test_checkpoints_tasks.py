"""The task of a checkpoint, by the classes that its configuration names."""

from __future__ import annotations

import pytest

from drupe_checkpoints.tasks import task_of


@pytest.mark.parametrize(
    ("architecture", "model_type", "task"),
    [
        ("LlamaForCausalLM", "llama", "text-generation"),
        ("GPT2LMHeadModel", "gpt2", "text-generation"),
        ("BertForSequenceClassification", "bert", "text-classification"),
        ("BertForTokenClassification", "bert", "token-classification"),
        ("RobertaForMaskedLM", "roberta", "fill-mask"),
        ("BertForQuestionAnswering", "bert", "question-answering"),
        ("BertModel", "bert", "feature-extraction"),
        ("T5ForConditionalGeneration", "t5", "text2text-generation"),
        ("WhisperForConditionalGeneration", "whisper", "automatic-speech-recognition"),
        ("Wav2Vec2ForCTC", "wav2vec2", "automatic-speech-recognition"),
        ("Qwen2VLForConditionalGeneration", "qwen2_vl", "image-text-to-text"),
        ("ViTForImageClassification", "vit", "image-classification"),
        ("AcmeFrobnicator", "acme", None),
    ],
)
def test_the_task_follows_from_the_class_of_the_architecture(
    architecture: str, model_type: str, task: str | None
) -> None:
    assert task_of([architecture], model_type) == task


def test_the_first_known_class_decides_the_task() -> None:
    assert task_of(["AcmeFrobnicator", "LlamaForCausalLM"], "llama") == "text-generation"
    assert task_of([], "llama") is None
