/** A queue with one reader. Of the items it knows only their weight. */
export class Mailbox<T> {
  private waiting: { item: T; weight: number }[] = []
  private first = 0
  private reader: PromiseWithResolvers<IteratorResult<T, undefined>> | null = null
  private over = false
  private failure: { error: unknown } | null = null

  weight = 0

  /** `emptied` is called each time the reader has taken the last item. */
  constructor(private readonly emptied: () => void = () => {}) {}

  put(item: T, weight = 0): void {
    if (this.over) return
    if (this.reader) {
      this.answer({ done: false, value: item })
    } else {
      this.waiting.push({ item, weight })
      this.weight += weight
    }
  }

  /** No item follows those that wait already. */
  end(): void {
    this.over = true
    if (this.reader) this.answer({ done: true, value: undefined })
  }

  /** Items that wait already are still read; then the reader gets the error, once. */
  fail(error: unknown): void {
    if (this.over) return
    this.over = true
    if (this.reader) {
      const { reject } = this.reader
      this.reader = null
      reject(error)
    } else {
      this.failure = { error }
    }
  }

  /** The reader has left. */
  abandon(): void {
    this.waiting = []
    this.first = this.weight = 0
    this.failure = null
    this.end()
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const entry = this.waiting[this.first]
    if (entry !== undefined) {
      this.first += 1
      this.weight -= entry.weight
      if (this.first === this.waiting.length) {
        this.waiting = []
        this.first = 0
        this.emptied()
      }
      return Promise.resolve({ done: false, value: entry.item })
    }
    if (this.failure) {
      const { error } = this.failure
      this.failure = null
      return Promise.reject(error)
    }
    if (this.over) return Promise.resolve({ done: true, value: undefined })
    if (this.reader) throw new Error('next() was called again before the last event came.')
    this.reader = withResolvers()
    return this.reader.promise
  }

  private answer(result: IteratorResult<T, undefined>): void {
    const { reader } = this
    this.reader = null
    reader?.resolve(result)
  }
}

interface PromiseWithResolvers<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (reason: unknown) => void
}

/** `Promise.withResolvers`, which Node 20 does not have. */
function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}
