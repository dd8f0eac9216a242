package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
)

// sessionCookie is what a browser gets for the token: a keyed hash of nothing secret, so it
// opens what the token opens, ends with the token, and does not give it away.
const sessionCookie = "sealfleet_session"

func (s *Server) session() string {
	mac := hmac.New(sha256.New, s.token[:])
	_, _ = mac.Write([]byte(sessionCookie)) // never fails
	return hex.EncodeToString(mac.Sum(nil))
}

func (s *Server) hasSession(r *http.Request) bool {
	c, err := r.Cookie(sessionCookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(s.session())) == 1
}

// HandleSession lets browsers exchange the token for a cookie, which pages can't read and
// other sites can't send.
func (s *Server) HandleSession() {
	protection := http.NewCrossOriginProtection()
	s.mux.Handle("POST /v1/session", protection.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Token string `json:"token"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			writeFault(w, http.StatusBadRequest, "bad_request", "send {\"token\": …}")
			return
		}
		sum := sha256.Sum256([]byte(strings.TrimSpace(body.Token)))
		if s.token != nil && subtle.ConstantTimeCompare(sum[:], s.token[:]) != 1 {
			writeFault(w, http.StatusUnauthorized, "unauthorized", "this is not the token of HTTP_TOKEN_FILE")
			return
		}
		if s.token != nil {
			http.SetCookie(w, s.cookie(s.session(), 0))
		}
		writeJSON(w, http.StatusOK, map[string]string{"schema": "sealfleet.v1", "action": "sign in", "message": "signed in"})
	})))
	s.mux.Handle("DELETE /v1/session", protection.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, s.cookie("", -1))
		writeJSON(w, http.StatusOK, map[string]string{"schema": "sealfleet.v1", "action": "sign out", "message": "signed out"})
	})))
}

func (s *Server) cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: sessionCookie, Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteStrictMode}
}

func writeFault(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}
