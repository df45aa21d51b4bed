"""What can be wrong with a corpus of concepts, or with what is asked of it."""


class ConceptError(Exception):
    """The room's errors."""


class BrokenCorpus(ConceptError, ValueError):
    """A folder that is no corpus of concepts, or one that nothing can be learnt from."""


class UnknownConcept(ConceptError, LookupError):
    """A concept that a corpus or a folder of directions does not have."""


class UnknownLayer(ConceptError, LookupError):
    """A layer that a model or a folder of directions does not have."""


class BadPooling(ConceptError, ValueError):
    """A position that holds none of a text's own tokens."""


class BadRows(ConceptError, ValueError):
    """Numbers that no direction can be made from."""


class CannotCollect(ConceptError, ValueError):
    """A source, a name, a threshold or a folder that no corpus can be collected with."""
