/**
 * The log as a person sees it: an editor (CodeMirror) that nobody can write into. It draws only the lines that are in sight, so that a million lines cost no
 * more than a hundred; what arrives is appended once a frame.
 */
import { standardKeymap } from '@codemirror/commands'
import { Annotation, Compartment, EditorState, type Range, RangeSetBuilder, StateEffect, Text } from '@codemirror/state'
import {
  Decoration,
  type DecorationSet,
  EditorView,
  highlightSpecialChars,
  keymap,
  lineNumbers,
  ViewPlugin,
  type ViewUpdate,
} from '@codemirror/view'
import { classesOf, paletteSheet, type Style } from './ansi.ts'
import paneSheet from './pane.css?inline'
import { Search } from './search.ts'
import { type Stream, Transcript } from './transcript.ts'

/** More than this is not kept in the page; the beginning goes first. */
const MOST_LINES = 2_000_000
const MOST_CHARACTERS = 110_000_000
/** How long the lines that arrived may take of a frame. */
const FRAME_MS = 8
/** Of a flood of lines some are drawn now and then, since drawing costs more than all else. */
const FLOOD_LINES = 500
const FLOOD_MS = 120
const AT_END_PX = 4
/** So long after lines were drawn the log may move by itself, and so long after a person's last touch it moves by that. */
const OURS_MS = 300
const THEIRS_MS = 1000
const TOUCHES = ['wheel', 'touchmove', 'pointerdown', 'pointermove', 'keydown'] as const

type Arrival = { first_seq: number; stream: Stream; lines: string[] } | { note: string }

export interface PaneState {
  lines: number
  following: boolean
  troubles: number
  /** 1-based; 0 when none is chosen. */
  trouble: number
  matches: number
  /** 1-based; 0 when none is chosen. */
  match: number
  searching: boolean
  /** Lines that came but are no longer kept here. */
  forgotten: number
}

export interface PaneOptions {
  label: string
  changed(state: PaneState): void
}

const redraw = StateEffect.define<null>()
const quiet = Annotation.define<boolean>()

export class Pane {
  private readonly transcript = new Transcript()
  private readonly search = new Search()
  private readonly view: EditorView
  private readonly wrapping = new Compartment()
  private readonly decorations = new Map<string, Decoration>()
  private arrivals: Arrival[] = []
  private drained: (() => void)[] = []
  private fresh: string[] = []
  private drawnAt = 0
  private movedAt = 0
  private touchedAt = 0
  private settling = 0
  private frame = 0
  private following = true
  private lastTop = 0
  private match = -1
  private trouble = -1
  private here = -1
  private told = ''
  private over = false

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
    this.view.scrollDOM.addEventListener('scroll', this.scrolled, { passive: true })
    for (const touch of TOUCHES) this.view.scrollDOM.addEventListener(touch, this.touched, { passive: true })
  }

  destroy(): void {
    this.over = true
    cancelAnimationFrame(this.frame)
    cancelAnimationFrame(this.settling)
    clearTimeout(this.frame)
    this.view.destroy()
    for (const go of this.drained) go()
  }

  /** Take lines; resolves when there is room for more. */
  add(first_seq: number, stream: Stream, lines: string[]): Promise<void> | undefined {
    this.arrivals.push({ first_seq, stream, lines })
    this.schedule()
    return this.arrivals.length > 64 ? new Promise(go => this.drained.push(go)) : undefined
  }

  addNote(note: string): void {
    this.arrivals.push({ note })
    this.schedule()
  }

  follow(following: boolean): void {
    this.following = following
    if (following) this.showEnd()
    this.tell()
  }

  wrap(wrapped: boolean): void {
    this.view.dispatch({ effects: this.wrapping.reconfigure(wrapped ? EditorView.lineWrapping : []) })
    if (this.following) this.showEnd()
  }

  find(query: string): void {
    this.search.ask(query, this.transcript.droppedCharacters)
    this.match = -1
    this.view.dispatch({ effects: redraw.of(null) })
    this.schedule()
    this.tell()
  }

  /** Go to the next match, or back; the first one is the one after what is in sight. */
  step(direction: 1 | -1): void {
    const { found } = this.search
    if (found.length === 0) return
    if (this.match < 0) {
      const top =
        this.view.lineBlockAtHeight(this.view.scrollDOM.scrollTop - this.view.documentPadding.top).from + this.transcript.droppedCharacters
      const below = found.countBelow(top)
      this.match = direction > 0 ? below % found.length : (below - 1 + found.length) % found.length
    } else {
      this.match = (this.match + direction + found.length) % found.length
    }
    this.goTo(found.at(this.match) - this.transcript.droppedCharacters)
  }

  /** Go to the first line that tells of an error, then to the next one each time. */
  toTrouble(): void {
    const { troubles, droppedLines } = this.transcript
    if (troubles.length === 0) return
    this.trouble = (this.trouble + 1) % troubles.length
    this.here = troubles.at(this.trouble)
    const { doc } = this.view.state
    this.goTo(doc.line(Math.min(this.here - droppedLines + 1, doc.lines)).from)
  }

  focus(): void {
    this.view.focus()
  }

  // -- what arrives -----------------------------------------------------------------------------------------------------

  private schedule(): void {
    if (this.frame || this.over) return
    // A page that is not in sight has no frames; its log goes on all the same.
    this.frame = document.hidden ? window.setTimeout(this.flush, 50) : requestAnimationFrame(this.flush)
  }

  private readonly flush = (): void => {
    this.frame = 0
    if (this.over) return
    // One of both in a frame, not both.
    const drawing = this.fresh.length > 0 && performance.now() - this.drawnAt > FLOOD_MS
    if (drawing) this.append(this.fresh.splice(0))
    else this.take()
    if (this.arrivals.length === 0 && this.fresh.length > 0 && this.fresh.length < FLOOD_LINES) this.append(this.fresh.splice(0))
    if (this.arrivals.length < 32) for (const go of this.drained.splice(0)) go()
    const searching = this.search.step(this.view.state.doc, this.transcript.droppedCharacters)
    if (searching || this.arrivals.length > 0 || this.fresh.length > 0) this.schedule()
    this.tell()
  }

  private take(): void {
    const until = performance.now() + FRAME_MS
    let taken = 0
    for (const arrival of this.arrivals) {
      const lines =
        'note' in arrival ? this.transcript.addNote(arrival.note) : this.transcript.add(arrival.first_seq, arrival.stream, arrival.lines)
      for (const line of lines) this.fresh.push(line)
      taken += 1
      if (performance.now() > until) break
    }
    this.arrivals.splice(0, taken)
  }

  private append(fresh: string[]): void {
    this.drawnAt = performance.now()
    const { doc } = this.view.state
    const empty = this.transcript.lines === fresh.length
    // The text ends without a line end, so what follows begins with one.
    const insert = Text.of(empty ? fresh : ['', ...fresh])
    const total = doc.length + insert.length
    const cut = doc.lines + fresh.length > MOST_LINES || total > MOST_CHARACTERS ? doc.line(Math.floor(doc.lines / 5) + 1) : null
    const changes = [{ from: doc.length, insert }, ...(cut ? [{ from: 0, to: cut.from }] : [])]
    if (cut) {
      this.transcript.drop(cut.number - 1, cut.from)
      this.search.drop(this.transcript.droppedCharacters)
      this.match = this.trouble = -1
    }
    this.view.dispatch({
      changes,
      annotations: quiet.of(true),
      effects: this.following ? this.toEnd(total - (cut?.from ?? 0)) : [],
    })
    if (this.following) this.settle()
  }

  private tell(): void {
    if (this.over) return
    const state: PaneState = {
      lines: this.transcript.lines - this.transcript.droppedLines,
      following: this.following,
      troubles: this.transcript.troubles.length,
      trouble: this.trouble + 1,
      matches: this.search.found.length,
      match: this.match + 1,
      searching: this.search.expression !== null && this.frame !== 0,
      forgotten: this.transcript.droppedLines,
    }
    const told = JSON.stringify(state)
    if (told === this.told) return
    this.told = told
    this.options.changed(state)
  }

  // -- where the reader is ----------------------------------------------------------------------------------------------

  private stay(): void {
    this.following = false
    this.tell()
  }

  private showEnd(): void {
    this.view.dispatch({ effects: this.toEnd() })
    this.settle()
  }

  /** When the editor has measured what is new, it keeps in sight what was there, and may leave the end. */
  private settle(): void {
    this.movedAt = performance.now()
    if (this.settling) return
    this.settling = requestAnimationFrame(() => {
      this.settling = 0
      const { scrollDOM } = this.view
      const end = scrollDOM.scrollHeight - scrollDOM.clientHeight
      if (this.following && scrollDOM.scrollTop < end - AT_END_PX) scrollDOM.scrollTop = end
    })
  }

  private toEnd(position = this.view.state.doc.length): StateEffect<unknown> {
    return EditorView.scrollIntoView(position, { y: 'end', x: 'start', yMargin: 8 })
  }

  private goTo(position: number): void {
    this.following = false
    this.view.dispatch({
      selection: { anchor: position },
      effects: [EditorView.scrollIntoView(position, { y: 'center' }), redraw.of(null)],
    })
    this.tell()
  }

  /** Whoever scrolls up wants to read; whoever comes back to the end wants to follow. */
  private readonly scrolled = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.view.scrollDOM
    const atEnd = scrollTop + clientHeight >= scrollHeight - AT_END_PX
    const now = performance.now()
    const up = scrollTop < this.lastTop - 1 && (now - this.movedAt > OURS_MS || now - this.touchedAt < THEIRS_MS)
    this.lastTop = scrollTop
    if (atEnd === this.following || (this.following && !up)) return
    this.following = atEnd
    this.tell()
  }

  private readonly touched = (event: Event): void => {
    if (event.type !== 'pointermove' || (event as PointerEvent).buttons !== 0) this.touchedAt = performance.now()
  }

  // -- how it looks -----------------------------------------------------------------------------------------------------

  private makeState(): EditorState {
    const pane = this
    const drawing = ViewPlugin.fromClass(
      class {
        decorations: DecorationSet = Decoration.none
        update(update: ViewUpdate) {
          if (
            update.docChanged ||
            update.viewportChanged ||
            update.transactions.some(({ effects }) => effects.some(effect => effect.is(redraw)))
          ) {
            this.decorations = pane.draw(update.view)
          }
        }
      },
      { decorations: plugin => plugin.decorations },
    )
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
        lineNumbers({ formatNumber: number => this.numberOf(number) }),
        highlightSpecialChars({ addSpecialChars: /[\u202a-\u202c\u2068]/g }),
        keymap.of([
          {
            key: 'Mod-End',
            run: () => (this.view.dispatch({ selection: { anchor: this.view.state.doc.length } }), this.follow(true), true),
          },
          ...standardKeymap,
        ]),
        this.wrapping.of([]),
        EditorView.updateListener.of(({ geometryChanged, transactions }) => {
          // Who goes somewhere by keys, or takes hold of a text, wants to stay there.
          if (transactions.some(transaction => transaction.isUserEvent('select'))) this.stay()
          else if (geometryChanged && this.following) this.settle()
        }),
        drawing,
      ],
    })
  }

  /** Beside a line: its number in the log; the widest one there is makes the room. */
  private numberOf(number: number): string {
    const line = number - 1 + this.transcript.droppedLines
    if (number > this.view?.state.doc.lines) return String(this.transcript.lastSeq)
    const seq = this.transcript.seqOf(line)
    return seq ? String(seq) : ''
  }

  private draw(view: EditorView): DecorationSet {
    const { transcript } = this
    const { droppedCharacters, droppedLines } = transcript
    const { doc } = view.state
    const lines = new RangeSetBuilder<Decoration>()
    const marks: Range<Decoration>[] = []
    for (const { from, to } of view.visibleRanges) {
      for (let number = doc.lineAt(from).number, last = doc.lineAt(to).number; number <= last; number += 1) {
        const decoration = this.lineDecoration(number - 1 + droppedLines)
        if (decoration) {
          const { from: start } = doc.line(number)
          lines.add(start, start, decoration)
        }
      }
      transcript.eachSpan(from + droppedCharacters, to + droppedCharacters, (start, end, style) => {
        const [begin, stop] = [Math.max(from, start - droppedCharacters), Math.min(to, end - droppedCharacters)]
        if (begin < stop) marks.push(this.mark(style).range(begin, stop))
      })
      this.markMatches(doc.sliceString(from, to), from, marks)
    }
    return Decoration.set([...iterate(lines.finish()), ...marks], true)
  }

  private lineDecoration(line: number): Decoration | null {
    const classes = [
      this.transcript.seqOf(line) === 0 ? 'note' : '',
      this.transcript.streamOf(line) === 'stderr' ? 'stderr' : '',
      this.isTrouble(line) ? 'trouble' : '',
      this.here === line ? 'here' : '',
    ]
    const name = classes.filter(Boolean).join(' ')
    return name === '' || line >= this.transcript.lines ? null : this.kept(`line:${name}`, () => Decoration.line({ class: name }))
  }

  private isTrouble(line: number): boolean {
    const { troubles } = this.transcript
    const index = troubles.countBelow(line)
    return index < troubles.length && troubles.at(index) === line
  }

  private mark(style: Style): Decoration {
    return this.kept(`style:${style}`, () => Decoration.mark({ class: classesOf(style) }))
  }

  private markMatches(text: string, from: number, marks: Range<Decoration>[]): void {
    const { expression, found } = this.search
    if (!expression) return
    const current = this.match >= 0 ? found.at(this.match) - this.transcript.droppedCharacters : -1
    for (const match of text.matchAll(expression)) {
      const begin = from + match.index
      const name = begin === current ? 'match current' : 'match'
      marks.push(this.kept(name, () => Decoration.mark({ class: name })).range(begin, begin + match[0].length))
    }
  }

  private kept(name: string, make: () => Decoration): Decoration {
    let decoration = this.decorations.get(name)
    if (!decoration) this.decorations.set(name, (decoration = make()))
    return decoration
  }
}

function* iterate(set: DecorationSet): Generator<Range<Decoration>> {
  for (const cursor = set.iter(); cursor.value; cursor.next()) yield cursor.value.range(cursor.from, cursor.to)
}
