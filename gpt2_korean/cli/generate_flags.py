"""The flags of generate.py, their defaults and what each of them takes; imports no torch."""

from gpt2_korean.cli.model_names import model_name
from gpt2_korean.cli.other_names import GENERATE_NAMES
from gpt2_korean.cli.parser import DEVICE, DEVICES, REMOTE_CODE, Collect, KoreanArgumentParser, add_flag, add_switch
from gpt2_korean.cli.suggestions import flag_to_write_with
from gpt2_korean.cli.values import MOST_TOKENS, choice, composed_text, file_path, integer, number, text
from gpt2_korean.cli.writing_values import api_key, origin, prompt_template, stage, temperature


def generate_parser(most_tokens=MOST_TOKENS):
    """The parser of generate.py's flags. most_tokens: of a text."""
    parser = KoreanArgumentParser(
        GENERATE_NAMES,
        flag_to_write_with,
        prog="generate.py",
        usage='python generate.py --model_name_or_path=체크포인트 --prompt="글의 앞부분" [플래그 ...]',
        description="학습한 모델로 글을 이어 쓰거나 대화합니다. 결과만 표준 출력에 씁니다.",
    )

    model = parser.add_argument_group("모델")
    add_flag(model, "--model_name_or_path", model_name, "체크포인트나 모델 폴더, 또는 Hub 이름. 꼭 필요합니다")
    add_flag(model, "--device", choice(*DEVICES), DEVICE, "auto")
    add_flag(
        model,
        "--dtype",
        choice("auto", "float32", "bfloat16", "float16"),
        "계산할 자료형. auto는 장치가 bfloat16으로 계산하면(AVX512-BF16이나 AMX가 있는 CPU도) bfloat16, 아니면 float32",
        "auto",
    )
    quantize_help = (
        "int8, int4: 가중치를 8비트나 4비트로 줄여(양자화) 더 빠르게 씁니다(CPU의 GPT-2, OpenVINO). int4가 더 빠르고 "
        "조금 덜 정확합니다"
    )
    add_flag(model, "--quantize", choice("int8", "int4"), quantize_help)
    engine_help = (
        "CPU에서 GPT-2를 계산할 프로그램. auto는 OpenVINO(requirements-openvino.txt)가 설치되어 있으면 openvino, "
        "아니면 torch"
    )
    add_flag(model, "--engine", choice("auto", "torch", "openvino"), engine_help, "auto")

    add_switch(model, "--trust_remote_code", REMOTE_CODE)

    prompt = parser.add_argument_group("앞글(프롬프트)")
    prompt_help = (
        "이어 쓸 글의 앞부분(앞글), 대화 모델에는 건넬 말. 여러 번 줄 수 있고, 빈 글이면 문서의 처음부터 씁니다 "
        "(기본값: 파이프로 넘긴 글, 없으면 빈 글)"
    )
    add_flag(prompt, "--prompt", text, prompt_help, action="append", metavar="글")
    add_flag(prompt, "--prompt_file", file_path, "앞글이 한 줄에 하나씩 든 글 파일(.gz .xz도)")
    add_flag(
        prompt,
        "--prompt_template",
        prompt_template,
        r'앞글을 넣을 틀 (예: "질문: {prompt}\n답변:"). 답만 보이고, --interactive와 --serve에서는 대화가 이어집니다. '
        "대화 양식이 있는 모델에는 필요 없습니다",
    )
    add_flag(prompt, "--system", stage, "대화 모델이 맡을 역할이나 상황 (예: 너는 친절한 상담원이야.)")
    add_switch(prompt, "--raw", "대화 양식이 있는 모델로도 대화하지 않고 글을 이어 씁니다")

    sampling = parser.add_argument_group("샘플링")
    length_help = "새로 쓸 토큰 수. 모델의 문맥보다 길면 앞쪽부터 잊으며 이어 씁니다"
    add_flag(sampling, "--length", integer(1, most_tokens), length_help, 100)
    add_flag(
        sampling, "--min_length", integer(0, most_tokens), "적어도 이만큼 새 토큰을 쓰기 전에는 글을 끝내지 않습니다", 0
    )
    add_switch(
        sampling,
        "--end_at_sentence",
        "글을 문장 끝에서 맺습니다. --length만큼 쓴 뒤 처음으로 문장이 끝나는 데까지 쓰고, 그만큼 더 써도 끝나지 "
        "않으면 마지막 문장 끝까지만 남깁니다. 쓰는 동안에는 한 문장씩 보입니다",
    )
    stop_help = r'이 글이 나오면 그 앞에서 끝냅니다. 여러 번 줄 수 있습니다 (예: "\n")'
    add_flag(sampling, "--stop", composed_text, stop_help, action="append", metavar="글")
    add_flag(sampling, "--top_k", integer(0), "확률이 높은 k개에서만 고릅니다. 0이면 제한하지 않습니다", 50)
    top_p_help = "확률이 높은 순서로 합이 p가 될 때까지의 후보에서만 고릅니다"
    add_flag(sampling, "--top_p", number(above=0, maximum=1), top_p_help, 1.0)
    min_p_help = "가장 확률이 높은 토큰의 p배가 안 되는 토큰은 고르지 않습니다. 0이면 제한하지 않습니다"
    add_flag(sampling, "--min_p", number(0, 1), min_p_help, 0.0)
    typical_help = (
        "너무 뻔하지도 뜻밖이지도 않은 순서로 확률의 합이 p가 될 때까지의 후보에서만 고릅니다. 1이면 제한하지 않습니다"
    )
    add_flag(sampling, "--typical_p", number(above=0, maximum=1), typical_help, 1.0)
    heat_help = "낮을수록 무난하고 높을수록 다양합니다. 0이면 항상 확률이 가장 높은 토큰을 고릅니다"
    add_flag(sampling, "--temperature", temperature, heat_help, 1.0)
    penalty_help = "반복 페널티: 이미 나온 토큰의 점수를 낮추는 정도. 1이면 낮추지 않습니다"
    add_flag(sampling, "--repetition_penalty", number(0.001, 1000), penalty_help, 1.0)
    add_flag(sampling, "--repetition_window", integer(0), "최근 N개의 토큰에만 반복 페널티를 줍니다. 0이면 모두", 0)
    add_switch(sampling, "--penalize_prompt", "앞글에 나온 토큰에도 반복 페널티를 줍니다 (기본값: true)", default=True)
    frequency_help = "새로 쓴 글에 나온 토큰의 점수에서 나온 횟수마다 빼는 값. 0이면 빼지 않습니다"
    add_flag(sampling, "--frequency_penalty", number(-2, 2), frequency_help, 0.0)
    presence_help = "새로 쓴 글에 한 번이라도 나온 토큰의 점수에서 빼는 값. 0이면 빼지 않습니다"
    add_flag(sampling, "--presence_penalty", number(-2, 2), presence_help, 0.0)
    dry_help = "DRY: 앞에 나온 구절을 길게 반복할수록 점수를 더 낮추는 정도. 흔히 0.8, 0이면 쓰지 않습니다"
    add_flag(sampling, "--dry_multiplier", number(0), dry_help, 0.0)
    base_help = "DRY: 반복이 한 토큰 길어질 때마다 점수를 몇 배로 더 낮출지"
    add_flag(sampling, "--dry_base", number(1), base_help, 1.75)
    add_flag(sampling, "--dry_allowed_length", integer(1), "DRY: 이보다 길게 반복하는 토큰부터 점수를 낮춥니다", 2)
    add_flag(sampling, "--dry_penalty_last_n", integer(0), "DRY: 최근 N개의 토큰에서만 반복을 찾습니다. 0이면 모두", 0)
    breaker_help = "DRY: 반복을 끊는 글. 여러 번 줄 수 있고, none이면 두지 않습니다"
    breakers = ["\n", ":", '"', "*"]
    add_flag(sampling, "--dry_sequence_breaker", composed_text, breaker_help, breakers, action=Collect, metavar="글")
    add_flag(
        sampling, "--no_repeat_ngram_size", integer(0), "이만큼 이어진 토큰은 반복하지 않습니다. 0이면 막지 않습니다", 0
    )
    healing_help = (
        "앞글의 마지막 토큰을 그 글자로 시작하는 토큰 가운데에서 다시 골라, 낱말 가운데에서 끝난 앞글도 그 낱말부터 "
        "잇습니다 (기본값: 빈칸으로 끝난 앞글만)"
    )
    add_switch(sampling, "--token_healing", healing_help, default=None)
    add_switch(sampling, "--allow_invalid_utf8", "글자 일부만 나와 깨지는 것(�)을 막지 않습니다")
    add_flag(
        sampling, "--seed", integer(0, 2**63 - 1), "난수 시드. 고른 값을 표준 오류에 알려 줍니다 (기본값: 매번 새로)"
    )

    output = parser.add_argument_group("결과")
    add_switch(output, "--stream", "글을 쓰는 대로 한 편씩 보입니다 (기본값: 터미널에 한 편만 쓸 때 켬)", default=None)
    add_switch(output, "--interactive", "앞글을 입력할 때마다 이어 씁니다. /help를 치면 쓸 수 있는 명령이 나옵니다")
    add_flag(output, "--num_return_sequences", integer(1, 1_000_000), "앞글마다 쓸 글의 수", 1)
    add_flag(output, "--batch_size", integer(1, 4096), "한 번에 함께 쓸 글의 수 (기본값: 메모리와 장치에 맞게)")
    add_flag(output, "--output_file", file_path, "결과를 한 줄에 하나씩 덧붙일 .jsonl 파일(앞글, 글, 시드, 설정)")
    add_switch(output, "--resume", "--output_file에 이미 있는 글은 두고 나머지를 이어 씁니다. 멈춘 명령에 더하세요")

    page = parser.add_argument_group("웹 페이지와 API")
    serve_help = "브라우저로 글을 쓰는 웹 페이지와 OpenAI 호환 API(/v1)를 엽니다. 다른 플래그로 준 값에서 시작합니다"
    add_switch(page, "--serve", serve_help)
    host_help = "웹 페이지를 열 주소. 기본값으로는 이 컴퓨터에서만 접속할 수 있습니다. 다른 컴퓨터에서도 쓰려면 0.0.0.0"
    add_flag(page, "--host", text, host_help, "127.0.0.1")
    add_flag(page, "--port", integer(0, 65535), "웹 페이지를 열 포트. 0이면 비어 있는 포트", 7860)
    key_help = (
        "이 키를 보내는 사람에게만 답합니다. 환경 변수 GPT2_KOREAN_API_KEY로 주면 프로세스 목록에 보이지 않습니다"
    )
    add_flag(page, "--api_key", api_key, key_help)
    cors_help = "이 주소의 다른 웹 페이지가 API를 쓸 수 있게 합니다. 여러 번 줄 수 있고, *는 모두입니다 (기본값: 없음)"
    add_flag(page, "--cors_origin", origin, cors_help, action="append", metavar="주소")

    export = parser.add_argument_group("내보내기")
    export_help = (
        "글을 쓰는 대신 모델을 llama.cpp와 Ollama가 여는 GGUF 파일로 내보냅니다. Ollama의 Modelfile도 같은 폴더에 "
        "쓰고, 샘플링 플래그의 값도 함께 담습니다 (예: 내모델.gguf)"
    )
    add_flag(export, "--export", file_path, export_help)
    type_help = "내보낼 가중치의 자료형. 파일의 크기는 f32의 반(f16, bf16)이나 4분의 1(q8_0)이 됩니다"
    add_flag(export, "--export_type", choice("f32", "f16", "bf16", "q8_0"), type_help, "f16")
    return parser
