"""The task of a checkpoint, by the classes that config.json names. The names are Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FEATURE_EXTRACTION = "feature-extraction"
TEXT = "text-generation"
BY_MODEL_TYPE: Mapping[str, str] = {
    "moonshine": "automatic-speech-recognition",
    "speech_to_text": "automatic-speech-recognition",
    "whisper": "automatic-speech-recognition",
    "chatglm": "text-generation",
    "aria": "image-text-to-text",
    "florence2": "image-text-to-text",
    "gemma3": "image-text-to-text",
    "idefics3": "image-text-to-text",
    "internvl": "image-text-to-text",
    "llava": "image-text-to-text",
    "llava_next": "image-text-to-text",
    "mistral3": "image-text-to-text",
    "mllama": "image-text-to-text",
    "paligemma": "image-text-to-text",
    "qwen2_5_vl": "image-text-to-text",
    "qwen2_vl": "image-text-to-text",
    "qwen3_vl": "image-text-to-text",
    "smolvlm": "image-text-to-text",
}
"""Tasks of models whose class ends in ForConditionalGeneration but that are not text-to-text models."""

BY_ENDING: Mapping[str, str] = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "ForZeroShotImageClassification": "zero-shot-image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForDepthEstimation": "depth-estimation",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ChatGLMModel": "text-generation",
    "Model": FEATURE_EXTRACTION,
}
"""Tasks by the ending of the class's name; where two endings match, the longer one counts."""


def task_of(architectures: Iterable[str], model_type: str) -> str | None:
    """The task of the first known class; None where no class is known. model_type: as in config.json."""
    for name in architectures:
        ending = max((each for each in BY_ENDING if name.endswith(each)), key=len, default=None)
        if ending == "ForConditionalGeneration":
            return BY_MODEL_TYPE.get(model_type, BY_ENDING[ending])
        if ending is not None:
            return BY_ENDING[ending]
    return None
