"""Understudy inside vLLM: the plugin that vLLM loads into each of its processes.

Only vLLM imports this room.
"""

import multiprocessing
import os
import signal
import threading

NAME = "understudy"
"""The plugin's name, in `VLLM_PLUGINS` and for both of its entry points."""

_registered = False


def register() -> None:
    """The entry point `vllm.general_plugins`: prepare this process for weights that are taught.

    vLLM calls it in every process, sometimes more than once. Unless `VLLM_PLUGINS` names it, nothing
    happens: having Understudy installed does not change somebody's vLLM. Raises UnprovedVersion.
    """
    global _registered
    import vllm
    from vllm import envs
    from vllm.platforms import current_platform

    from understudy.engine.vllm import patches, sharing, tapping

    if _registered or NAME not in (envs.VLLM_PLUGINS or ()):
        return
    patches.check_version(vllm.__version__)
    if current_platform.is_cpu():
        packed = sharing.packed_matrices()
        patches.keep_linear_weights(packed)
        if packed is not None:
            patches.before_pass(lambda: sharing.follow(packed))
        patches.keep_convolution_weights()
        patches.read_any_head_size()
    patches.after_loading(sharing.share, before=sharing.settle)
    patches.salt_prefix_cache(sharing.current_prefix)
    patches.add_worker_method("understudy_manifest", sharing.manifest)
    patches.add_worker_method("understudy_send_readouts", tapping.send_readouts)
    _follow_parent()
    _registered = True


def _follow_parent() -> None:
    """End with the process that started this one. vLLM's scheduler and workers outlive an API server that was
    killed: they would hold their memory, and the mapping, with nobody left to ask them.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="follow-parent", daemon=True).start()
