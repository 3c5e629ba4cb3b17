/**
 * The log on the page: a read-only editor (CodeMirror), which draws only the lines in sight, so that a million lines cost no more than a hundred. It
 * joins the parts: the inbox takes lines, the transcript and the search know them, the follower scrolls and the painter decorates.
 */
import { standardKeymap } from '@codemirror/commands'
import { Compartment, EditorState, Text } from '@codemirror/state'
import { EditorView, highlightSpecialChars, keymap, lineNumbers } from '@codemirror/view'
import { paletteSheet } from './ansi.ts'
import { Follower } from './follower.ts'
import { Inbox } from './inbox.ts'
import { Painter, type Place, redraw } from './painter.ts'
import paneSheet from './pane.css?inline'
import { Search } from './search.ts'
import { type Stream, Transcript } from './transcript.ts'

/** More than this is not kept in the page; the first lines are dropped. */
const MOST_LINES = 2_000_000
const MOST_CHARACTERS = 110_000_000
/** Frames of a page that is not in sight, which gets none from the browser. */
const HIDDEN_FRAME_MS = 50

export interface PaneState {
  lines: number
  following: boolean
  errorLines: number
  /** 1-based; 0 when none is chosen. */
  errorLine: number
  matches: number
  /** 1-based; 0 when none is chosen. */
  match: number
  searching: boolean
  /** Lines that came but are no longer kept here. */
  dropped: number
}

export interface PaneOptions {
  label: string
  changed(state: PaneState): void
}

export class Pane {
  private readonly transcript = new Transcript()
  private readonly search = new Search()
  private readonly inbox = new Inbox(this.transcript)
  private readonly follower = new Follower(() => this.reportState())
  private readonly place: Place = { match: -1, errorLine: -1 }
  private readonly painter = new Painter(this.transcript, this.search, this.place)
  private readonly view: EditorView
  private readonly wrapping = new Compartment()
  private errorIndex = -1
  private frame = 0
  private reported = ''
  private destroyed = false

  constructor(
    host: HTMLElement,
    private readonly options: PaneOptions,
  ) {
    const root = host.shadowRoot ?? host.attachShadow({ mode: 'open' })
    root.adoptedStyleSheets = [paletteSheet(), paneSheet].map(text => {
      const sheet = new CSSStyleSheet()
      sheet.replaceSync(text)
      return sheet
    })
    this.view = new EditorView({ root, parent: root, state: this.makeState() })
    this.follower.attach(this.view)
  }

  destroy(): void {
    this.destroyed = true
    cancelAnimationFrame(this.frame)
    clearTimeout(this.frame)
    this.follower.destroy()
    this.view.destroy()
    this.inbox.release()
  }

  /** Take lines; resolves when there is room for more. */
  add(first_seq: number, stream: Stream, lines: string[]): Promise<void> | undefined {
    const room = this.inbox.add(first_seq, stream, lines)
    this.schedule()
    return room
  }

  /** Take a note, in the place of lines that are missing. */
  addNote(note: string): void {
    this.inbox.addNote(note)
    this.schedule()
  }

  follow(following: boolean): void {
    this.follower.follow(following)
  }

  wrap(wrapped: boolean): void {
    this.view.dispatch({ effects: this.wrapping.reconfigure(wrapped ? EditorView.lineWrapping : []) })
    if (this.follower.following) this.follower.showEnd()
  }

  find(query: string): void {
    this.search.ask(query, this.transcript.droppedCharacters)
    this.place.match = -1
    this.view.dispatch({ effects: redraw.of(null) })
    this.schedule()
    this.reportState()
  }

  /** Go to the next match, or back; the first one is the one after what is in sight. */
  step(direction: 1 | -1): void {
    const { found } = this.search
    if (found.length === 0) return
    if (this.place.match < 0) {
      const top =
        this.view.lineBlockAtHeight(this.view.scrollDOM.scrollTop - this.view.documentPadding.top).from + this.transcript.droppedCharacters
      const below = found.countBelow(top)
      this.place.match = direction > 0 ? below % found.length : (below - 1 + found.length) % found.length
    } else {
      this.place.match = (this.place.match + direction + found.length) % found.length
    }
    this.goTo(found.at(this.place.match) - this.transcript.droppedCharacters)
  }

  /** Go to the first line that tells of an error, then to the next one each time. */
  toNextError(): void {
    const { errorLines, droppedLines } = this.transcript
    if (errorLines.length === 0) return
    this.errorIndex = (this.errorIndex + 1) % errorLines.length
    this.place.errorLine = errorLines.at(this.errorIndex)
    const { doc } = this.view.state
    this.goTo(doc.line(Math.min(this.place.errorLine - droppedLines + 1, doc.lines)).from)
  }

  focus(): void {
    this.view.focus()
  }

  private schedule(): void {
    if (this.frame || this.destroyed) return
    this.frame = document.hidden ? window.setTimeout(this.flush, HIDDEN_FRAME_MS) : requestAnimationFrame(this.flush)
  }

  private readonly flush = (): void => {
    this.frame = 0
    if (this.destroyed) return
    const lines = this.inbox.next()
    if (lines.length > 0) this.append(lines)
    const searching = this.search.step(this.view.state.doc, this.transcript.droppedCharacters)
    if (searching || this.inbox.busy) this.schedule()
    this.reportState()
  }

  private append(lines: string[]): void {
    const { doc } = this.view.state
    const empty = this.transcript.lines === lines.length
    // The text ends without a line end, so what follows begins with one.
    const insert = Text.of(empty ? lines : ['', ...lines])
    const total = doc.length + insert.length
    const full = doc.lines + lines.length > MOST_LINES || total > MOST_CHARACTERS
    const cut = full ? doc.line(Math.floor(doc.lines / 5) + 1) : null
    if (cut) {
      this.transcript.drop(cut.number - 1, cut.from)
      this.search.drop(this.transcript.droppedCharacters)
      this.place.match = this.errorIndex = -1
    }
    const { following } = this.follower
    this.view.dispatch({
      changes: [{ from: doc.length, insert }, ...(cut ? [{ from: 0, to: cut.from }] : [])],
      effects: following ? this.follower.toEnd(total - (cut?.from ?? 0)) : [],
    })
    if (following) this.follower.settle()
  }

  /** Tell the page, if anything has changed. */
  private reportState(): void {
    if (this.destroyed) return
    const state: PaneState = {
      lines: this.transcript.lines - this.transcript.droppedLines,
      following: this.follower.following,
      errorLines: this.transcript.errorLines.length,
      errorLine: this.errorIndex + 1,
      matches: this.search.found.length,
      match: this.place.match + 1,
      searching: this.search.expression !== null && this.frame !== 0,
      dropped: this.transcript.droppedLines,
    }
    const report = JSON.stringify(state)
    if (report === this.reported) return
    this.reported = report
    this.options.changed(state)
  }

  private goTo(position: number): void {
    this.follower.following = false
    this.view.dispatch({
      selection: { anchor: position },
      effects: [EditorView.scrollIntoView(position, { y: 'center' }), redraw.of(null)],
    })
    this.reportState()
  }

  private makeState(): EditorState {
    return EditorState.create({
      extensions: [
        EditorState.readOnly.of(true),
        EditorView.contentAttributes.of({
          'aria-label': this.options.label,
          'aria-readonly': 'true',
          inputmode: 'none',
          spellcheck: 'false',
          tabindex: '0',
          translate: 'no',
        }),
        lineNumbers({ formatNumber: number => this.lineNumber(number) }),
        highlightSpecialChars({ addSpecialChars: /[\u202a-\u202c\u2068]/g }),
        keymap.of([{ key: 'Mod-End', run: () => this.toEnd() }, ...standardKeymap]),
        this.wrapping.of([]),
        this.follower.extension,
        this.painter.extension,
      ],
    })
  }

  private toEnd(): true {
    this.view.dispatch({ selection: { anchor: this.view.state.doc.length } })
    this.follower.follow(true)
    return true
  }

  /** Beside a line: its number in the log. A number behind the last line asks for the widest one, which sets the width of the gutter. */
  private lineNumber(number: number): string {
    const line = number - 1 + this.transcript.droppedLines
    if (number > this.view?.state.doc.lines) return String(this.transcript.lastSeq)
    const seq = this.transcript.seqOf(line)
    return seq ? String(seq) : ''
  }
}
