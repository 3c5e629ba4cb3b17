// biome-ignore-all lint/style/noNonNullAssertion: the index of an element is always in range
/** A list of numbers that only grows at its end and shrinks at its beginning. Each takes 4 or 8 bytes. */
export class Numbers {
  private first = 0
  private end = 0

  private kept: Uint32Array | Float64Array

  constructor(kept: Uint32Array | Float64Array = new Float64Array(256)) {
    this.kept = kept
  }

  get length(): number {
    return this.end - this.first
  }

  at(index: number): number {
    return this.kept[this.first + index]!
  }

  push(value: number): void {
    if (this.end === this.kept.length) this.makeRoom()
    this.kept[this.end] = value
    this.end += 1
  }

  /** Remove the first `count` numbers. */
  drop(count: number): void {
    this.first += count
  }

  clear(): void {
    this.first = this.end = 0
  }

  /** How many numbers are less than `value`; they must be in order. */
  countBelow(value: number): number {
    let low = 0
    let high = this.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.at(middle) < value) low = middle + 1
      else high = middle
    }
    return low
  }

  private makeRoom(): void {
    const live = this.kept.subarray(this.first, this.end)
    const roomy = live.length < this.kept.length / 2 ? this.kept : new (this.kept.constructor as typeof Float64Array)(this.kept.length * 2)
    roomy.set(live)
    this.kept = roomy
    this.end -= this.first
    this.first = 0
  }
}
