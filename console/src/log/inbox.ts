/** Lines between their arrival and the text of the log: read into the transcript a little in each frame, and handed out in batches. Knows no editor. */
import type { Stream, Transcript } from './transcript.ts'

/** How long reading the arrivals may take of a frame. */
const FRAME_MS = 8
/** Many lines at once are handed out in batches, at intervals: drawing costs more than everything else. */
const FLOOD_LINES = 500
const FLOOD_MS = 120
/** With more arrivals than this, senders wait until fewer than half of them are left. */
const MOST_ARRIVALS = 64

type Arrival = { first_seq: number; stream: Stream; lines: string[] } | { note: string }

export class Inbox {
  private arrivals: Arrival[] = []
  private lines: string[] = []
  private waiting: (() => void)[] = []
  private handedOutAt = 0

  constructor(private readonly transcript: Transcript) {}

  /** Whether anything is left to be read or handed out. */
  get busy(): boolean {
    return this.arrivals.length > 0 || this.lines.length > 0
  }

  /** Take lines; resolves when there is room for more. */
  add(first_seq: number, stream: Stream, lines: string[]): Promise<void> | undefined {
    this.arrivals.push({ first_seq, stream, lines })
    return this.arrivals.length > MOST_ARRIVALS ? new Promise(resolve => this.waiting.push(resolve)) : undefined
  }

  addNote(note: string): void {
    this.arrivals.push({ note })
  }

  /** What is to be appended in this frame, often nothing. A frame either reads arrivals or hands out a large batch, never both. */
  next(): string[] {
    let batch: string[] = []
    if (this.lines.length > 0 && performance.now() - this.handedOutAt > FLOOD_MS) batch = this.handOut()
    else this.read()
    if (this.arrivals.length === 0 && this.lines.length > 0 && this.lines.length < FLOOD_LINES) batch = this.handOut()
    if (this.arrivals.length < MOST_ARRIVALS / 2) this.release()
    return batch
  }

  /** Let all senders go on. */
  release(): void {
    for (const resolve of this.waiting.splice(0)) resolve()
  }

  private handOut(): string[] {
    this.handedOutAt = performance.now()
    return this.lines.splice(0)
  }

  private read(): void {
    const until = performance.now() + FRAME_MS
    let count = 0
    for (const arrival of this.arrivals) {
      const lines =
        'note' in arrival ? this.transcript.addNote(arrival.note) : this.transcript.add(arrival.first_seq, arrival.stream, arrival.lines)
      for (const line of lines) this.lines.push(line)
      count += 1
      if (performance.now() > until) break
    }
    this.arrivals.splice(0, count)
  }
}
