"""A program: vLLM in one process, with the plugin. It reads JSON lines and answers each with one.

`python answer_ids.py MODEL DTYPE [--compiled]` says `{"manifest": ...}` first. `{"ids": [[...], ...]}` asks
for the log-probability of each token but the first of each sequence; with `"steer": [...]`, steered.
"""

import json
import os
import sys

os.environ |= {
    "VLLM_PLUGINS": "understudy",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what vLLM prints is no answer
    from vllm import LLM, SamplingParams

    model, dtype = sys.argv[1:3]
    llm = LLM(model, dtype=dtype, enforce_eager="--compiled" not in sys.argv, max_model_len=512)
    print(json.dumps({"manifest": llm.collective_rpc("understudy_manifest")[0]}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        llm.reset_prefix_cache()  # what it holds was computed with other weights
        prompts = [{"prompt_token_ids": ids} for ids in asked["ids"]]
        extra = {"steer": asked["steer"]} if "steer" in asked else None
        sampling = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0, extra_args=extra)
        found = [
            [each[token].logprob for token, each in zip(ids[1:], made.prompt_logprobs[1:], strict=True)]
            for ids, made in zip(asked["ids"], llm.generate(prompts, sampling, use_tqdm=False), strict=True)
        ]
        print(json.dumps(found), file=answers)


if __name__ == "__main__":
    main()
