import { io } from 'socket.io-client'

const [token, jobId] = process.argv.slice(2)
const socket = io('http://127.0.0.1:8000', { path: '/socket.io', auth: { token } })
let seen = 0 // the number of the last line that came

socket.on('connect', async () => {
  if (!socket.connected) return // lost again while events of the last connection were delivered
  const answer = await socket.emitWithAck('subscribe', { job_id: jobId, after_seq: seen }).catch(() => null)
  if (answer && !answer.ok) throw new Error(answer.problem.detail)
})
socket.on('log', ({ first_seq, lines }) => {
  seen = first_seq + lines.length - 1
  for (const line of lines) console.log(line)
})
socket.on('complete', ({ status }) => {
  console.log(status)
  socket.close()
})
socket.on('connect_error', error => console.error(error.data?.detail ?? error.message))
