// SPDX-License-Identifier: Apache-2.0
// Go's net/http, whose transport keeps connections.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

var host = os.Args[1]

func body(size int) []byte {
	made := make([]byte, size)
	for i := range made {
		made[i] = byte(i)
	}
	return made
}

func check(method, name, path string, data io.Reader, want []byte, expect bool) {
	request, err := http.NewRequest(method, "http://"+host+"/"+name+"/"+path, data)
	if err != nil {
		panic(err)
	}
	if expect {
		request.Header.Set("Expect", "100-continue")
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	if answer.StatusCode != 200 || answer.Header.Get("x-backend") != name || !bytes.Equal(got, want) {
		panic(fmt.Sprint(name, path, answer.StatusCode, answer.Header, len(got)))
	}
}

func main() {
	names := strings.Split("ab", "")
	for n := 0; n < 40; n++ {
		check("GET", names[n%2], fmt.Sprint("size/", n), nil, body(n), false)
	}
	var all sync.WaitGroup
	for n := 0; n < 160; n++ {
		all.Add(1)
		go func(n int) {
			defer all.Done()
			check("POST", names[n%2], "echo", bytes.NewReader(body(n*99)), body(n*99), false)
		}(n)
	}
	all.Wait()
	for _, size := range []int{10, 100000, 10000000} {
		check("POST", "a", "echo", bytes.NewReader(body(size)), body(size), false)
		chunked := struct{ io.Reader }{bytes.NewReader(body(size))} // of unknown length
		check("POST", "b", "echo", chunked, body(size), false)
		check("GET", "a", fmt.Sprint("chunked/", size), nil, body(size), false)
	}
	check("POST", "a", "echo", bytes.NewReader(body(9)), body(9), true)
	check("HEAD", "b", "size/50", nil, nil, false)
	fmt.Println("ok")
}
