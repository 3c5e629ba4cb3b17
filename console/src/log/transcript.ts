// biome-ignore-all lint/style/noNonNullAssertion: indexes are found by search and always in range
/**
 * What is known of a log beside its text: the number, the stream and the colours of each line, and which lines tell of an error. The text itself is
 * the document of the pane. Pure. Positions are counted from the first line and character that ever came, also after those were dropped.
 */
import { PLAIN, type Style, show } from './ansi.ts'
import { Numbers } from './numbers.ts'

export type Stream = 'stdout' | 'stderr'

/** A run of lines from `line` on (0-based): with numbers from `seq` on, or a note (`seq` 0). */
interface Run {
  line: number
  seq: number
}

const ERROR =
  /(?:^|[^\w./-])(?:error|fatal|panic(?:ked)?|exception|traceback|failed|failure|segmentation fault)(?![\w-]|\.\w)|\w(?:Error|Exception):/i
const NO_ERROR = /\b(?:0|no|without(?: any)?)\s+(?:errors?|failures?|failed|exceptions?)\b|\b(?:errors?|failures?|failed)\s*[:=]\s*0\b/i

export class Transcript {
  /** Lines that came, notes included, and characters with their line ends. */
  lines = 0
  characters = 0
  /** Those of them that the pane has dropped again. */
  droppedLines = 0
  droppedCharacters = 0
  lastSeq = 0

  readonly errorLines = new Numbers()

  private runs: Run[] = []
  private streams: { line: number; stream: Stream }[] = []
  private readonly from = new Numbers()
  private readonly to = new Numbers()
  private readonly styles = new Numbers(new Uint32Array(256))
  private readonly open: Record<Stream, Style> = { stdout: PLAIN, stderr: PLAIN }

  /** Add lines; returns what to append to the text. */
  add(first_seq: number, stream: Stream, lines: string[]): string[] {
    if (first_seq !== this.lastSeq + 1 || this.runs.length === 0 || this.runs.at(-1)!.seq === 0)
      this.runs.push({ line: this.lines, seq: first_seq })
    if (this.streams.at(-1)?.stream !== stream) this.streams.push({ line: this.lines, stream })
    this.lastSeq = first_seq + lines.length - 1
    return lines.map(line => this.addLine(stream, line))
  }

  /** Add a note, in the place of lines that are missing. */
  addNote(text: string): string[] {
    this.runs.push({ line: this.lines, seq: 0 })
    this.streams.push({ line: this.lines, stream: 'stdout' })
    this.count(text)
    return [text]
  }

  /** Forget the first lines, with their characters. */
  drop(lines: number, characters: number): void {
    this.droppedLines += lines
    this.droppedCharacters += characters
    const gone = this.to.countBelow(this.droppedCharacters)
    for (const list of [this.from, this.to, this.styles]) list.drop(gone)
    this.errorLines.drop(this.errorLines.countBelow(this.droppedLines))
    this.runs = this.runs.slice(Math.max(0, lastBefore(this.runs, this.droppedLines)))
    this.streams = this.streams.slice(Math.max(0, lastBefore(this.streams, this.droppedLines)))
  }

  /** The number of a line; 0 for a note. */
  seqOf(line: number): number {
    const run = this.runs[lastBefore(this.runs, line)]
    return run && run.seq > 0 ? run.seq + line - run.line : 0
  }

  /** The line with the number `seq`, or the next one that exists; null after the end. */
  lineOf(seq: number): number | null {
    for (const [index, run] of this.runs.entries()) {
      if (run.seq === 0) continue
      const end = this.runs[index + 1]?.line ?? this.lines
      if (seq < run.seq + end - run.line) return Math.max(run.line, run.line + seq - run.seq, this.droppedLines)
    }
    return null
  }

  streamOf(line: number): Stream {
    return this.streams[lastBefore(this.streams, line)]?.stream ?? 'stdout'
  }

  isErrorLine(line: number): boolean {
    const index = this.errorLines.countBelow(line)
    return index < this.errorLines.length && this.errorLines.at(index) === line
  }

  /** Calls `call` for every coloured span between two positions. */
  eachSpan(from: number, to: number, call: (from: number, to: number, style: Style) => void): void {
    for (let index = this.to.countBelow(from + 1); index < this.from.length && this.from.at(index) < to; index += 1) {
      call(this.from.at(index), this.to.at(index), this.styles.at(index))
    }
  }

  private addLine(stream: Stream, line: string): string {
    const { text, spans, style } = show(line, this.open[stream])
    this.open[stream] = style
    for (let at = 0; at < spans.length; at += 3) {
      this.from.push(this.characters + spans[at]!)
      this.to.push(this.characters + spans[at + 1]!)
      this.styles.push(spans[at + 2]!)
    }
    if (ERROR.test(text) && !NO_ERROR.test(text)) this.errorLines.push(this.lines)
    this.count(text)
    return text
  }

  private count(text: string): void {
    this.lines += 1
    this.characters += text.length + 1
  }
}

/** The index of the last run that begins at `line` or before; -1 when there is none. */
function lastBefore(runs: { line: number }[], line: number): number {
  let low = 0
  let high = runs.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (runs[middle]!.line <= line) low = middle + 1
    else high = middle
  }
  return low - 1
}
