"""The flags and variables of each model server that a property of the component owns, and what to write instead.

Two answers to one question pass every check and end in a model that is never ready: of `--model_name=a` and the name
that readiness is asked of, the server takes the one and the probe the other.

Sources: KServe v0.20.0 config/runtimes/*.yaml (what the runtimes write), python/kserve/kserve/model_server.py,
python/{sklearn,xgb,lgb,huggingface}server and pkg/apis/serving/v1beta1/*_custom.go; Triton src/command_line_parser.cc;
TensorFlow Serving model_servers/main.cc; TorchServe ts/arg_parser.py; MLServer mlserver/settings.py; vLLM
entrypoints/openai/cli_args.py.
"""

from __future__ import annotations

from _runtimes import FLAGS_OF

from velagen import (
    choose,
    comment,
    contains_text,
    each,
    if_else,
    length,
    let,
    lower,
    matches,
    replace_pattern,
    replace_text,
    upper,
)
from velagen import parameter as p
from velagen.template.expression import Expression, Reference, Value

NAME = "write modelName in its place"
STORE = "write modelUri in its place"
HUB = "write modelUri: hf://ORG/MODEL in its place"
PORT = "leave it out, the port follows from runtime and protocol"
PROTOCOL = "write protocol in its place"
METRICS = "leave it out, metrics are asked of the runtime's own port"
BATCHING = "write dynamicBatching in its place"
TLS = "leave it out, probes and gateway call the server without TLS"

#: By server: what to write, and in the place of which flags (dashes between their words) and variables ($NAME).
OWNED: dict[str, dict[str, tuple[str, ...]]] = {
    "triton": {
        STORE: ("model-repository", "model-store"),
        PORT: ("http-port", "grpc-port"),
        PROTOCOL: ("allow-http", "allow-grpc"),
        METRICS: ("metrics-port",),
        TLS: ("grpc-use-ssl", "grpc-use-ssl-mutual"),
    },
    "kserve": {
        NAME: ("model-name",),
        STORE: ("model-dir",),
        PORT: ("http-port", "grpc-port"),
        PROTOCOL: ("enable-grpc",),
    },
    "huggingface": {
        NAME: ("model-name", "served-model-name"),
        HUB: ("model-id", "model"),
        STORE: ("model-dir",),
        "write modelUri: hf://ORG/MODEL:REVISION in its place": ("model-revision",),
        PORT: ("http-port", "grpc-port", "port", "uds"),
        PROTOCOL: ("enable-grpc",),
    },
    "vllm": {
        NAME: ("served-model-name",),
        HUB: ("model",),
        PORT: ("port", "uds"),
        TLS: ("ssl-keyfile", "ssl-certfile"),
    },
    "mlflow": {
        NAME: ("$MLSERVER_MODEL_NAME",),
        STORE: ("$MLSERVER_MODEL_URI", "$MLSERVER_MODELS_DIR"),
        PORT: ("$MLSERVER_HTTP_PORT", "$MLSERVER_GRPC_PORT"),
        METRICS: ("$MLSERVER_METRICS_PORT",),
        BATCHING: ("$MLSERVER_MODEL_MAX_BATCH_SIZE", "$MLSERVER_MODEL_MAX_BATCH_TIME"),
        "leave it out, it follows from runtime": ("$MLSERVER_MODEL_IMPLEMENTATION",),
    },
    "pytorch": {
        STORE: ("model-store",),
        "write modelName, and name the model in the package's config/config.properties (model_snapshot)": ("models",),
        "leave it out, the server reads the package's config/config.properties": ("ts-config",),
        "write protocolVersion in its place": ("$TS_SERVICE_ENVELOPE",),
    },
    "tensorflow": {
        NAME: ("model-name",),
        STORE: ("model-base-path",),
        "write modelName and modelUri in its place": ("model-config-file",),
        PORT: ("port", "rest-api-port", "grpc-socket-path"),
        TLS: ("ssl-config-file",),
    },
    # Of a transformer and an explainer, whose programs are the user's: what KServe and the component themselves write.
    "companion": {
        "write modelName at the component in its place": ("--model_name",),
        "leave it out, the container listens on port 8080": ("--http_port",),
        "write artifactsUri in its place": ("$STORAGE_URI",),
    },
    # A ServingRuntime of which nothing is known but its name.
    "other": {},
}


def flags_taken(runtime: Expression) -> Reference:
    """The sentences about arguments and variables that a property owns, in a list.

    A flag is known by every spelling that its server takes, or drops without a word: `--flag=value` and `--flag value`,
    one dash or two, `_` or `-` between its words, and what argparse and getopt_long take for an abbreviation.
    """
    server = let(comment("Whose flags: servers that take the same have one table.", choose(runtime, FLAGS_OF, runtime)))
    words_given = let(
        comment(
            "The flags and variables that args and env hold: what is said of each, the word that flagsOwned is "
            "searched for (a long flag by its beginning, since servers take abbreviations, another as a whole), of "
            "which server.",
            [
                *_words_of(p, "", server),
                *(
                    words
                    for number in (0, 1)
                    for words in (
                        _words_of(p.transformer, "transformer.", "companion")[number],
                        _words_of(p.explainer, "explainer.", "companion")[number],
                    )
                ),
            ],
        )
    )
    flags_owned = let(
        comment(
            "By server: what to write, and in the place of which flags and variables, each with a space before and "
            "behind.",
            {name: {what: f" {' '.join(flags)} " for what, flags in table.items()} for name, table in OWNED.items()},
        )
    )
    answers_to_words = let(
        [
            each(
                words_given,
                lambda one: [
                    each(
                        flags_owned[one.of],
                        lambda instead, _: f"{one.said}: {instead}",
                        where=lambda flags: contains_text(flags, one.word),
                    )
                ],
            )
        ],
    )
    taken = [each(answers_to_words, lambda found: found[0], where=lambda found: length(found) > 0)]
    return let(comment("What is refused of them.", taken), name="flags_taken")


def _words_of(own: Reference, at: str, server: Value) -> list[Value]:
    """What stands in *own*'s args and env: what is said of it, the word that is looked for, and of which server."""

    def flag(arg: Reference) -> Value:
        name: Expression = replace_pattern(arg, r"(?s)[=\s].*$", "")
        if isinstance(server, str):
            word = f" {name} "
        else:
            name = lower(replace_text(replace_pattern(name, "^--?", ""), "_", "-"))
            word = f" {name}{if_else(matches(arg, '^--'), '', ' ')}"
        return {"said": f"{at}args may not hold {arg}", "word": word, "of": server}

    def variable(one: Reference) -> Value:
        return {"said": f"{at}env may not set {one.name}", "word": f" ${upper(one.name)} ", "of": server}

    return [
        each(own.args, flag, where=lambda arg: matches(arg, "^--?[A-Za-z]")),
        each(own.env, variable),
    ]
