"""Knowledge distillation from a domain-specific language model into a general one."""

__version__ = "0.1.0"
