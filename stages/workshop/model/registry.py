"""One explicit call that makes the Auto classes of transformers know BlueLM-V."""

from __future__ import annotations


def register() -> None:
    """Registers configuration, model, processor and image processor; calling it again is harmless."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

    from stages.workshop.model.configuration import MODEL_TYPE, BlueLMVConfig
    from stages.workshop.model.image_processing import BlueLMVImageProcessor
    from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
    from stages.workshop.model.processing import BlueLMVProcessor

    AutoConfig.register(MODEL_TYPE, BlueLMVConfig, exist_ok=True)
    for auto in (AutoModel, AutoModelForImageTextToText):
        auto.register(BlueLMVConfig, BlueLMVForConditionalGeneration, exist_ok=True)
    AutoImageProcessor.register(BlueLMVConfig, image_processor_classes={"pil": BlueLMVImageProcessor}, exist_ok=True)
    AutoProcessor.register(BlueLMVConfig, BlueLMVProcessor, exist_ok=True)
