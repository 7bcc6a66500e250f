/** Where the server answers; of an address with a name and a key (http://name:key@…) browsers fetch nothing. */
export const at = (path) => new URL(path, location.origin + location.pathname);

export const GONE = "generate.py에 연결할 수 없습니다. 터미널에서 실행 중인지 확인하세요.";

/** What the server answers: an event a line, as they come. Ends without an error when `signal` is aborted. */
export async function* ask(path, body, signal) {
  try {
    const response = await fetch(at(path), {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });
    if (!response.ok) {
      const { error, field } = await response.json();
      return yield { error: error.message ?? error, field }; // that of a wrong key is as OpenAI's API has it
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) yield JSON.parse(line);
    }
  } catch {
    if (!signal.aborted) yield { error: GONE };
  }
}
