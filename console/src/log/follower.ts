/** Keeps the end of the log in sight until the reader goes somewhere else, and again when the reader comes back to the end. */
import type { Extension, StateEffect } from '@codemirror/state'
import { EditorView } from '@codemirror/view'

const AT_END_PX = 4
/** For this long after lines were drawn, a scroll is taken as the editor's own, unless the reader has touched the log this recently. */
const EDITOR_SCROLL_MS = 300
const READER_SCROLL_MS = 1000
const TOUCHES = ['wheel', 'touchmove', 'pointerdown', 'pointermove', 'keydown'] as const

export class Follower {
  following = true
  /** Part of the editor's state. */
  readonly extension: Extension = EditorView.updateListener.of(({ geometryChanged, transactions }) => {
    // A reader who moves by keys, or selects text, wants to stay there.
    if (transactions.some(transaction => transaction.isUserEvent('select'))) this.stop()
    else if (geometryChanged && this.following) this.settle()
  })

  private view!: EditorView
  private drawnAt = 0
  private touchedAt = 0
  private lastTop = 0
  private frame = 0

  constructor(private readonly changed: () => void) {}

  /** Call once, before lines come. */
  attach(view: EditorView): void {
    this.view = view
    view.scrollDOM.addEventListener('scroll', this.scrolled, { passive: true })
    for (const touch of TOUCHES) view.scrollDOM.addEventListener(touch, this.touched, { passive: true })
  }

  destroy(): void {
    cancelAnimationFrame(this.frame)
  }

  follow(following: boolean): void {
    this.following = following
    if (following) this.showEnd()
    this.changed()
  }

  stop(): void {
    this.following = false
    this.changed()
  }

  showEnd(): void {
    this.view.dispatch({ effects: this.toEnd() })
    this.settle()
  }

  toEnd(position = this.view.state.doc.length): StateEffect<unknown> {
    return EditorView.scrollIntoView(position, { y: 'end', x: 'start', yMargin: 8 })
  }

  /** Scroll to the end once more in the next frame: after measuring new lines, the editor keeps in sight what was there, and may leave the end. */
  settle(): void {
    this.drawnAt = performance.now()
    if (this.frame) return
    this.frame = requestAnimationFrame(() => {
      this.frame = 0
      const { scrollDOM } = this.view
      const end = scrollDOM.scrollHeight - scrollDOM.clientHeight
      if (this.following && scrollDOM.scrollTop < end - AT_END_PX) scrollDOM.scrollTop = end
    })
  }

  /** A reader who scrolls up wants to read; one who comes back to the end wants to follow. */
  private readonly scrolled = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.view.scrollDOM
    const atEnd = scrollTop + clientHeight >= scrollHeight - AT_END_PX
    const now = performance.now()
    const byReader = now - this.drawnAt > EDITOR_SCROLL_MS || now - this.touchedAt < READER_SCROLL_MS
    const up = scrollTop < this.lastTop - 1 && byReader
    this.lastTop = scrollTop
    if (atEnd === this.following || (this.following && !up)) return
    this.following = atEnd
    this.changed()
  }

  private readonly touched = (event: Event): void => {
    if (event.type !== 'pointermove' || (event as PointerEvent).buttons !== 0) this.touchedAt = performance.now()
  }
}
