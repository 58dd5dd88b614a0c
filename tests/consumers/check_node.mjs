// Node parses every JSON line that we write, and its sums are ours.
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const expected = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));
const lines = (file) => readFileSync(join(folder, file), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

const NAMES = { // of the columns that hold whole inputs, outputs and times in microseconds
  jsonl: ["input_tokens", "output_tokens", (row) => row.arrival_us],
  mooncake: ["input_length", "output_length", (row) => row.timestamp * 1e3],
  sglang: ["input_length", "output_length", (row) => row.timestamp * 1e3],
  dynamo: ["input_length", "output_length", (row) => row.timestamp * 1e3],
  guidellm: ["input_length", "output_length", (row) => row.timestamp * 1e6],
  "vllm-timed": ["input_length", "output_length", (row) => row.timestamp * 1e6],
  bailian: ["input_length", "output_length", (row) => row.timestamp * 1e6],
};

const ids = (row) => [row.conversation, ...row.hash_ids];

for (const [name, [input, output, us]] of Object.entries(NAMES)) {
  try {
    const about = expected.exports[name];
    const trace = expected.traces[about.trace];
    const rows = lines(about.file);
    const checks = [
      ["rows", rows.length, trace.arrival_us.length],
      ["input tokens", sum(rows.map((row) => row[input])), sum(trace.input_tokens)],
      ["output tokens", sum(rows.map((row) => row[output])), sum(trace.output_tokens)],
      ["times", sum(rows.map((row) => Math.round(us(row)))), sum(trace.arrival_us)],
    ];
    // dense ids are numbers of JavaScript; others are known to lose digits beyond 2^53
    if (name === "jsonl") checks.push(["ids", rows.flatMap(ids).filter((id) => !Number.isSafeInteger(id)).length, 0]);
    const wrong = checks.filter(([, found, wanted]) => found !== wanted);
    if (wrong.length) throw new Error(wrong.map(([what, a, b]) => `${what}: ${a} instead of ${b}`).join("; "));
    console.log(`pass ${name}, ${rows.length} rows`);
  } catch (error) {
    console.log(`fail ${name}: ${error.message}`);
  }
}
