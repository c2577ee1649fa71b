"""Sensorium: one grammar for multimodal models."""

from sensorium.adapt import Lora, Merging, adapt, load_adapter, merged, save_adapter, switch
from sensorium.align import AttentionPool, Merge, Pool, Project, Resample
from sensorium.autoencoder import Compress, Expand
from sensorium.autoencoder_video import CompressVideo, ExpandVideo
from sensorium.chat import Chat
from sensorium.checkpoint import Coverage, Pretrained, load, save
from sensorium.codecs.audio import AudioCodec
from sensorium.codecs.native import ClipCodec, NativeCodec
from sensorium.codecs.text import Tokenizer
from sensorium.codecs.tiles import AnyresCodec, SplitCodec, StretchCodec, ViewsCodec
from sensorium.codecs.video import FramesCodec
from sensorium.codecs.vision import VisionCodec
from sensorium.codecs.voice import VoiceCodec
from sensorium.data import Arrays, Packer
from sensorium.decoder import Decoder
from sensorium.desk import TruncationWarning
from sensorium.dual_stream import DualStream
from sensorium.encoders import AudioEncoder, LabelEncoder, MobileEncoder, TextEncoder, VisionEncoder, Vocabulary
from sensorium.encoders_looks import Looks
from sensorium.encoders_native import NativeEncoder
from sensorium.encoders_relative import RelativeEncoder
from sensorium.engine import Codecs, draw_images, draw_videos, embed, respond, stream, write_texts
from sensorium.fuse import Condition, CrossAttend, Prompt, Splice
from sensorium.fuse_motion import Motion
from sensorium.gan import Adversarial, Critic, Grow, Pixels
from sensorium.heads import Classes, Lookahead, Tokens, Unit
from sensorium.heads_codes import Codes
from sensorium.heads_flow import ConvFlow, Flow, FrameFlow, VideoFlow
from sensorium.heads_voice import Voice
from sensorium.layers.experts import Experts
from sensorium.layers.int8 import in_int8
from sensorium.layers.mla import Latent
from sensorium.layers.stack import Stack
from sensorium.model import Model, ModelNet
from sensorium.objectives import Ahead, Balance, Classify, Contrastive, NextCode, NextToken
from sensorium.objectives_ctc import Ctc
from sensorium.objectives_denoise import Denoise, FlowMatching
from sensorium.objectives_pixels import Reconstruct
from sensorium.objectives_spell import Spell
from sensorium.objectives_voice import Speaking
from sensorium.paths import Diffusion, Straight
from sensorium.samples import Mixture, open_source
from sensorium.spec import Spec, from_dict, from_json
from sensorium.train import Group, Run, fit
from sensorium.types import *  # noqa: F403
from sensorium.unet import UNet
from sensorium.voice import own_voice

import sensorium.zoo  # isort: skip  (the families register themselves, and with them the published layouts that load() knows)
