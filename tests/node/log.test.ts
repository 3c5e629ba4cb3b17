// biome-ignore-all lint/suspicious/noControlCharactersInRegex: the tests look for control characters
// The parts of the console's log that need no browser: `node --test log.test.ts`.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BOLD, classesOf, PLAIN, show } from '../../console/src/log/ansi.ts'
import { Numbers } from '../../console/src/log/numbers.ts'
import { Transcript } from '../../console/src/log/transcript.ts'

function spansOf(line: string): [text: string, classes: string][] {
  const { text, spans } = show(line, PLAIN)
  const pieces: [string, string][] = []
  for (let at = 0; at < spans.length; at += 3) pieces.push([text.slice(spans[at], spans[at + 1]), classesOf(spans[at + 2] ?? PLAIN)])
  return pieces
}

test('colour sequences become classes; no sequence is left in the text', () => {
  const cases = {
    '\x1b[31mred\x1b[0m plain': [['red', 'a-f1']],
    '\x1b[1;32;44mall\x1b[m': [['all', 'a-b a-f2 a-g4']],
    '\x1b[97mbright\x1b[39m': [['bright', 'a-f15']],
    '\x1b[38;5;208morange': [['orange', 'a-f208']],
    '\x1b[48;5;17mdeep': [['deep', 'a-g17']],
    '\x1b[38;2;255;0;0mtrue': [['true', 'a-f196']],
    '\x1b[38;2;128;128;128mgrey': [['grey', 'a-f244']],
    '\x1b[7;31mturned': [['turned', 'a-ft a-g1']],
    '\x1b[31mred\x1b[1mbold\x1b[22mthin': [
      ['red', 'a-f1'],
      ['bold', 'a-b a-f1'],
      ['thin', 'a-f1'],
    ],
    '\x9b33mC1\x9b0m': [['C1', 'a-f3']],
    '\x1b[38;5;999mnone': [],
    '\x1b[2Kplain\x1b[3A': [],
  }
  for (const [line, wanted] of Object.entries(cases)) {
    assert.deepEqual(spansOf(line), wanted, JSON.stringify(line))
    assert.doesNotMatch(show(line, PLAIN).text, /[\x00-\x08\x0a-\x1f\x7f-\x9f]/)
  }
})

test('a style lasts until it is reset, separately for each stream', () => {
  const transcript = new Transcript()
  transcript.add(1, 'stdout', ['\x1b[1mbold', 'still'])
  transcript.add(3, 'stderr', ['plain'])
  transcript.add(4, 'stdout', ['on\x1b[0m', 'off'])
  const spans: number[][] = []
  transcript.eachSpan(0, transcript.characters, (from, to, style) => spans.push([from, to, style]))
  assert.deepEqual(spans, [
    [0, 4, BOLD],
    [5, 10, BOLD],
    [17, 19, BOLD],
  ])
})

test('any bytes are shown without control characters, quickly', () => {
  let seed = 7
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed % below
  }
  for (let round = 0; round < 3000; round += 1) {
    const line = Array.from({ length: random(60) }, () => '\x1b\x1b[]P;:0123m\x07\x9b\x9c\\ab\x00\x7f\x85é'[random(24)]).join('')
    assert.doesNotMatch(show(line, PLAIN).text, /[\x00-\x08\x0a-\x1f\x7f-\x9f]/, JSON.stringify(line))
  }
  for (const evil of ['\x1b[', '\x1b]', '\x1b', '\x1b[0;', '\x9b1;']) {
    const begun = performance.now()
    show(evil.repeat(65_536 / evil.length), PLAIN)
    assert.ok(performance.now() - begun < 500, `${JSON.stringify(evil)} took ${performance.now() - begun} ms`)
  }
})

test('lines keep number and stream after gaps and dropped lines', () => {
  const transcript = new Transcript()
  transcript.add(1, 'stdout', ['one', 'two', 'three'])
  transcript.addNote('Lines 4 to 9 are gone')
  transcript.add(10, 'stderr', ['ten: error: it broke', 'eleven'])
  transcript.add(12, 'stdout', ['0 errors', '\x1b[31mthirteen'])
  const numbers = () =>
    Array.from({ length: transcript.lines - transcript.droppedLines }, (_, at) => transcript.seqOf(at + transcript.droppedLines))
  assert.deepEqual(numbers(), [1, 2, 3, 0, 10, 11, 12, 13])
  assert.deepEqual(
    [0, 4, 5, 6].map(line => transcript.streamOf(line)),
    ['stdout', 'stderr', 'stderr', 'stdout'],
  )
  assert.equal(transcript.lineOf(10), 4)
  assert.equal(transcript.lineOf(5), 4) // gone: the next one there is
  assert.equal(transcript.lineOf(14), null)
  assert.deepEqual([transcript.errorLines.length, transcript.errorLines.at(0)], [1, 4])

  transcript.drop(5, 'one\ntwo\nthree\nLines 4 to 9 are gone\nten: error: it broke\n'.length)
  assert.deepEqual(numbers(), [11, 12, 13])
  assert.equal(transcript.errorLines.length, 0)
  assert.equal(transcript.streamOf(5), 'stderr')
  const spans: number[][] = []
  transcript.eachSpan(transcript.droppedCharacters, transcript.characters, (from, to) =>
    spans.push([from - transcript.droppedCharacters, to - transcript.droppedCharacters]),
  )
  assert.deepEqual(spans, [['eleven\n0 errors\n'.length, 'eleven\n0 errors\nthirteen'.length]])
})

test('error lines are told from lines that only look like errors', () => {
  const errors = [
    'error: x',
    'main.c:3:1: error: y',
    'FATAL',
    'Traceback (most recent call last):',
    'ValueError: bad',
    '2 failed',
    'build FAILED',
    'Segmentation fault',
    'ninja: error: z',
  ]
  const others = [
    '0 errors',
    'no errors found',
    'errors: 0',
    'Compiling error.cpp',
    'error_handler ready',
    'without any errors',
    'terror',
    'src/errors/index.ts',
    'failed: 0',
  ]
  const tellsOfError = (line: string) => {
    const transcript = new Transcript()
    transcript.add(1, 'stdout', [line])
    return transcript.errorLines.length === 1
  }
  for (const line of errors) assert.ok(tellsOfError(line), line)
  for (const line of others) assert.ok(!tellsOfError(line), line)
})

test('numbers are added at the end, dropped at the front, and found', () => {
  const numbers = new Numbers()
  for (let value = 0; value < 10_000; value += 1) {
    numbers.push(value * 2)
    if (value % 3 === 2) numbers.drop(1)
  }
  assert.equal(numbers.length, 10_000 - 3333)
  assert.equal(numbers.at(0), 3333 * 2)
  assert.equal(numbers.countBelow(3333 * 2), 0)
  assert.equal(numbers.countBelow(3335 * 2 - 1), 2)
  assert.equal(numbers.countBelow(1e9), numbers.length)
})
